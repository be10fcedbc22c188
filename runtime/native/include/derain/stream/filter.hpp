/// One frame in, one picture out: the pipeline's rules for a host that has threads, a source and a sink of its own.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>

#include "derain/stream/pipeline.hpp"
#include "derain/stream/wake.hpp"

namespace derain {

/// Derains frames one after the other under the guard: what comes out is clean, or raw for a reason, and in time.
///
/// For one thread at a time, but for `stop`, `go_on` and `statistics`. The engine, open and warmed up, works on a
/// thread of its own.
class Filter {
   public:
    struct Shown {
        Picture picture;
        std::optional<Why> why;
    };

    /// `deadline_ms` counts from a frame's capture; `to_output` is for raw pictures.
    Filter(std::shared_ptr<Engine> engine, std::optional<double> deadline_ms, ToOutput to_output, Tell tell = nullptr);
    Filter(const Filter&) = delete;
    Filter& operator=(const Filter&) = delete;
    ~Filter();

    /// The picture to show for a frame, by its deadline where there is one.
    Shown process(Picture raw, std::int64_t captured_ns);
    /// Until `go_on` nobody waits for the engine: the frame it has, and each that follows, goes out raw at once, and
    /// does not count, since nobody shows it. Then the next one waits for it again, as long as its deadline allows.
    ///
    /// Without a deadline an engine that hangs would keep `process`, and so the host's end, for ever.
    void stop();
    void go_on();
    /// Calls `read` with the counts so far, which do not change meanwhile; on any thread.
    template <typename Read>
    auto statistics(Read read) const {
        const std::scoped_lock lock(mutex_);
        return read(tally_);
    }

   private:
    class Nowhere;

    std::shared_ptr<Wake> wake_;
    FrameQueue frames_{Policy::latest};
    Guard guard_;
    std::unique_ptr<Sink> sink_;
    mutable std::mutex mutex_;
    Tally tally_;
    Worker worker_;
    Loop loop_;
    std::int64_t count_ = 0;
    std::optional<Shown> shown_;
    std::atomic<bool> stopped_ = false;
};

}  // namespace derain
