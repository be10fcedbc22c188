/// What the stream's tests share: small frames, engines that fail on cue, sinks that remember.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "derain/engine.hpp"
#include "derain/stream/pipeline.hpp"

namespace derain::testing {

inline constexpr std::int64_t ms_ns = 1'000'000;
inline constexpr int width = 32;
inline constexpr int height = 16;

inline FrameSpec make_spec(const std::string& tensor = "frame", Pixels pixels = Pixels::bgr8) {
    return {.tensor = tensor, .width = width, .height = height, .pixels = pixels};
}

/// A picture of one grey level.
inline Picture grey(int level, std::size_t bytes = make_spec().bytes()) {
    Picture picture = Pool::make(bytes, 1)->take();
    std::ranges::fill(picture.writable(), static_cast<std::byte>(level));
    return picture;
}

/// A folder that goes with the test.
class Folder {
   public:
    Folder() {
        std::string name = (std::filesystem::temp_directory_path() / "derain-XXXXXX").string();
        if (mkdtemp(name.data()) == nullptr) {
            throw Error("no temporary folder");
        }
        path_ = name;
    }
    Folder(const Folder&) = delete;
    Folder& operator=(const Folder&) = delete;
    ~Folder() { std::filesystem::remove_all(path_); }
    [[nodiscard]] const std::filesystem::path& path() const { return path_; }

   private:
    std::filesystem::path path_;
};

/// A bundle without graphs, for engines that need none.
inline Bundle make_bundle(int frame_width = width, int frame_height = height) {
    const Folder folder;
    const auto spec = [&](const std::string& tensor) {
        return R"({"tensor": ")" + tensor + R"(", "width": )" + std::to_string(frame_width) + R"(, "height": )" +
               std::to_string(frame_height) + R"(, "pixels": "bgr8", "matrix": "bt601", "range": "limited"})";
    };
    std::ofstream(folder.path() / "manifest.json")
        << R"({"schema_version": 1, "derain_version": "0", "model": {"name": "invert", "parameters": 0, )"
        << R"("weights": "none", "config": {}}, "unroll": {"encoder_steps": 1, "decoder_steps": 1, "macs": 0, )"
        << R"("macs_naive": 0}, "input": )" << spec("frame") << R"(, "output": )" << spec("clean")
        << R"(, "graphs": [], "engines": [], "quality": [], "files": {"none": {"sha256": ")" << std::string(64, '0')
        << R"(", "bytes": 0}}})";
    return Bundle::load(folder.path());
}

/// What a `ScriptedEngine` does with a frame instead of inverting it.
enum class Fault { raise, out_of_memory, foreign, slow, black, frozen };

/// Returns 255 - frame, or does what `script` says for a frame by its number, counted from 0 over all openings.
///
/// The grey frames of a warm-up cost no number. Of the openings after the first, `refusals` fail.
class ScriptedEngine final : public Engine {
   public:
    explicit ScriptedEngine(std::map<int, Fault> script = {}, int slow_ms = 200, int refusals = 0,
                            const Bundle& bundle = make_bundle())
        : Engine("scripted", bundle, Precision::fp32),
          script_(std::move(script)),
          slow_ms_(slow_ms),
          refusals_(refusals) {}

    /// How many openings went well.
    [[nodiscard]] int openings() const { return openings_; }

   private:
    void do_open() override {
        if (openings_ > 0 && refusals_ > 0) {
            --refusals_;
            throw Error("engine.plan: no such file");
        }
        ++openings_;
    }

    void do_infer(std::span<const std::byte> frame, std::span<std::byte> clean) override {
        const bool warming_up = std::ranges::all_of(frame, [](std::byte value) { return value == std::byte{128}; });
        const auto entry = script_.find(number_);
        number_ += warming_up ? 0 : 1;
        const bool scripted = entry != script_.end() && !warming_up;
        if (scripted && entry->second == Fault::raise) {
            throw Error("an illegal memory access was encountered\nand more of it");
        }
        if (scripted && entry->second == Fault::out_of_memory) {
            throw std::bad_alloc();
        }
        if (scripted && entry->second == Fault::foreign) {
            throw 7;
        }
        if (scripted && entry->second == Fault::slow) {
            std::this_thread::sleep_for(std::chrono::milliseconds(slow_ms_));
        }
        if (scripted && entry->second == Fault::black) {
            std::ranges::fill(clean, std::byte{0});
        } else if (scripted && entry->second == Fault::frozen) {
            std::ranges::copy(last_, clean.begin());
        } else {
            std::ranges::transform(frame, clean.begin(), [](std::byte value) { return ~value; });
            last_.assign(clean.begin(), clean.end());
        }
    }

    void do_close() override {}

    std::map<int, Fault> script_;
    int slow_ms_;
    int refusals_;
    int openings_ = 0;
    int number_ = 0;
    std::vector<std::byte> last_;
};

/// Hangs in its first frame until it is let go.
class HangingEngine final : public Engine {
   public:
    HangingEngine() : Engine("hanging", make_bundle(), Precision::fp32) {}

    [[nodiscard]] bool hangs() const { return hangs_; }

    /// Waits until nobody else holds it.
    static void let_go(std::shared_ptr<HangingEngine> engine) {
        {
            const std::scoped_lock lock(engine->mutex_);
            engine->let_go_ = true;
            engine->changed_.notify_all();
        }
        const std::weak_ptr<HangingEngine> left = std::exchange(engine, nullptr);
        while (!left.expired()) {
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
    }

   private:
    void do_open() override {}

    void do_infer(std::span<const std::byte>, std::span<std::byte>) override {
        std::unique_lock lock(mutex_);
        hangs_ = true;
        changed_.wait_for(lock, std::chrono::seconds(20), [this] { return let_go_; });
        hangs_ = false;
    }

    void do_close() override {}

    std::mutex mutex_;
    std::condition_variable changed_;
    bool let_go_ = false;
    std::atomic<bool> hangs_ = false;
};

template <typename Kind>
std::shared_ptr<Kind> opened(std::shared_ptr<Kind> engine) {
    engine->open();
    return engine;
}

/// Gives `count` pictures in turn, as fast as they are taken or `fps` a second.
class MemorySource final : public Source {
   public:
    MemorySource(std::vector<Picture> pictures, std::int64_t count, const FrameSpec& spec = make_spec(), double fps = 0)
        : Source("memory", spec), pictures_(std::move(pictures)), count_(count), fps_(fps) {
        set_live(fps > 0);
        set_frames(count);
    }

    [[nodiscard]] std::unique_ptr<Source> reopened() const override { throw Error("memory: cannot be opened again"); }

   private:
    Read read() override {
        if (next_ == count_) {
            return {};
        }
        if (fps_ > 0) {
            const auto due_ns = start_ns_ + static_cast<std::int64_t>(static_cast<double>(next_) * 1e9 / fps_);
            std::this_thread::sleep_for(std::chrono::nanoseconds(due_ns - monotonic_ns()));
        }
        return {.picture = pictures_[static_cast<std::size_t>(next_++) % pictures_.size()]};
    }

    std::vector<Picture> pictures_;
    std::int64_t count_;
    double fps_;
    std::int64_t start_ns_ = monotonic_ns();
    std::int64_t next_ = 0;
};

/// Counts what it is shown.
class CountingSink final : public Sink {
   public:
    explicit CountingSink(const FrameSpec& spec = make_spec("clean")) : Sink("memory", spec) {}

   private:
    void put(std::span<const std::byte>, std::int64_t, bool) override {}
};

/// What an act is refused with; nothing where it is not.
std::string fault(const std::function<void()>& act);

/// Pictures of noise, from a seed.
std::vector<Picture> noise(std::size_t count, std::size_t bytes = make_spec().bytes());

}  // namespace derain::testing
