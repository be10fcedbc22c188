#pragma once

#include <array>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>

#include "derain/engine.hpp"
#include "derain/stream/pipeline.hpp"

namespace derain {

/// How long a caller is ready to wait; nothing: for ever.
using Patience = std::optional<std::chrono::milliseconds>;

/// A frame that came out, raw or clean, and its record.
struct Received {
    FrameRecord record;
    Picture picture;
};

/// The pipeline for a caller who has frames of their own: they are pushed in at one end and pulled out at the other.
///
/// The source of the run is a slot the caller fills, its sink a short queue the caller empties. Under `latest` the
/// queue keeps the newest frame; under `every` it makes the run wait.
class Session {
   public:
    struct Options {
        Policy policy = Policy::latest;
        std::optional<double> deadline_ms = std::nullopt;
        double patience_s = engine_patience_s;
        Tell tell = nullptr;
    };

    struct Statistics {
        std::uint64_t submitted = 0;
        std::uint64_t unreceived = 0;
        Tally tally{};
    };

    /// Runs `engine`, which is open and stays its owner's; Error where a raw frame could not stand in for a clean one.
    Session(std::shared_ptr<Engine> engine, Options options);
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;
    /// Waits for what the engine has; for one that hangs no longer than `patience_s`, and leaves it behind.
    ~Session();

    /// Copies a frame in and gives its id; nothing where there was no room in time. Error for another size.
    std::optional<std::uint64_t> submit(std::span<const std::byte> frame, std::int64_t captured_ns, Patience patience);

    /// The next frame; nothing in time, or at the end. Error where the run itself failed.
    std::optional<Received> receive(Patience patience);

    /// No frame will follow.
    void finish();

    /// Whether the run came to its end and everything has been received; false where it failed, which `receive` tells.
    [[nodiscard]] bool ended() const;
    /// Calls `read` with the counts so far, which do not change meanwhile.
    template <typename Read>
    auto statistics(Read read) const {
        const std::scoped_lock lock(mutex_);
        return read(statistics_);
    }
    [[nodiscard]] const Engine& engine() const { return *engine_; }

   private:
    class Fed;

    void present(const FrameRecord& record, const Picture& picture);
    void run_until_end();

    const std::shared_ptr<Engine> engine_;
    const Options options_;
    const std::shared_ptr<Fed> source_;
    mutable std::mutex mutex_;
    std::condition_variable arrived_;
    std::condition_variable room_;
    std::array<std::optional<Received>, 2> ring_;
    std::size_t first_ = 0;
    std::size_t size_ = 0;
    Statistics statistics_;
    bool closed_ = false;
    bool over_ = false;
    std::string fault_;
    std::thread thread_;
};

}  // namespace derain
