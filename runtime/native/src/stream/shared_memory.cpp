/// `shm://name`: frames that another process of this machine writes or reads, in a ring that never waits for readers.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "decoded.hpp"
#include "derain/error.hpp"
#include "derain/stream/clock.hpp"
#include "derain/stream/shared_frames.hpp"
#include "kinds.hpp"

namespace derain {

namespace {

constexpr double look_s = 0.1;     // how long one wait lasts before this looks whether it was closed itself
constexpr double back_s = 1;       // how long a reopened ring may stay without a new frame,
constexpr double back_frames = 4;  // or so many of its frames, where that is longer
constexpr std::size_t pictures_in_advance = 5;

/// The newest frame each time, captured when its writer says, if that is of our clock; one copy, out of the ring. Error
/// when it closes. It begins with the next frame that is written: the ring of a writer that died still holds that one's
/// last.
class SharedMemorySource final : public Source {
   public:
    SharedMemorySource(const std::string& name, const FrameSpec& spec)
        : Source("shm://" + name, spec),
          name_(name),
          frames_(SharedFrames::attach(name, spec)),
          pool_(Pool::make(spec.bytes(), pictures_in_advance)) {
        set_live(true);
        set_fps(believed(frames_.fps().value_or(0)));
    }

    /// Error where no new frame comes: the ring of a writer that died can still be attached to.
    [[nodiscard]] std::unique_ptr<Source> reopened() const override {
        auto again = std::make_unique<SharedMemorySource>(name_, spec());
        const double wait_s = again->fps() ? std::max(back_s, back_frames / *again->fps()) : back_s;
        if (!again->frames_.wait_for_newer(again->seen_, wait_s)) {
            throw Error(location() + ": no frame for " + std::to_string(std::lround(wait_s)) +
                        " s: is its writer still running?");
        }
        return again;
    }

   private:
    Read read() override {
        Picture picture = pool_->take();
        while (!closed()) {
            if (frames_.wait_for_newer(seen_, look_s)) {
                if (const auto newest = frames_.newest(picture.writable())) {
                    seen_ = newest->number + 1;
                    const auto captured_ns = of_our_clock(newest->captured_ns, monotonic_ns());
                    return {.picture = std::move(picture), .captured_ns = captured_ns};
                }
                std::this_thread::sleep_for(std::chrono::microseconds(500));  // a ring that is damaged stays so
            } else if (frames_.closed()) {
                throw Error(location() + ": its writer has closed it");
            }
        }
        return {};
    }

    std::string name_;
    SharedFrames frames_;
    std::shared_ptr<Pool> pool_;
    std::uint64_t seen_ = frames_.published();
};

/// Writes the ring that `--source shm://name` reads; it appears with this sink and goes with it.
class SharedMemorySink final : public Sink {
   public:
    SharedMemorySink(const std::string& name, const FrameSpec& spec, std::optional<double> fps)
        : Sink("shm://" + name, spec), frames_(SharedFrames::create(name, spec, fps)) {}

    void close() override { frames_.reset(); }

   private:
    void put(std::span<const std::byte> image, std::int64_t captured_ns, bool raw) override {
        frames_.value().publish(image, captured_ns, raw);
    }

    std::optional<SharedFrames> frames_;
};

}  // namespace

std::unique_ptr<Source> shared_memory_source(const std::string& location, const FrameSpec& spec) {
    return std::make_unique<SharedMemorySource>(location, spec);
}

std::unique_ptr<Sink> shared_memory_sink(const std::string& location, const FrameSpec& spec, std::optional<double> fps,
                                         bool) {
    return std::make_unique<SharedMemorySink>(location, spec, fps);
}

}  // namespace derain
