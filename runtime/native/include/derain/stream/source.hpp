/// What every source of frames does.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "derain/frame.hpp"
#include "derain/stream/queue.hpp"

namespace derain {

/// Frames in `spec`'s pixel format, to be read once, by one thread.
///
/// A `live` source does not wait for whoever reads it, and may fail and come back: see `reopened`. A kind fills in
/// `read`, and `release` where it holds something that does not release itself.
class Source {
   public:
    /// `location` is how messages name it: without credentials.
    Source(std::string location, const FrameSpec& spec) : location_(std::move(location)), spec_(spec) {}
    Source(const Source&) = delete;
    Source& operator=(const Source&) = delete;
    virtual ~Source() = default;

    /// The next frame, nothing after the last or once closed; it waits for it.
    ///
    /// Throws Error where there are no frames, they have another size than `spec`, or they end too early.
    std::optional<Frame> next();

    /// A new source of the same URI, for a live one that was lost; on any thread. Throws Error where it is still away.
    [[nodiscard]] virtual std::unique_ptr<Source> reopened() const = 0;

    /// Under `latest`, which must be said before the first frame, a source that has newer frames already may skip some.
    void set_policy(Policy policy) { policy_ = policy; }

    /// Releases the device or the file; while another thread waits in a read, that thread does it after the read.
    void close();

    [[nodiscard]] const std::string& location() const { return location_; }
    [[nodiscard]] const FrameSpec& spec() const { return spec_; }
    [[nodiscard]] bool live() const { return live_; }
    /// The source's own rate, frames a second, where it has one.
    [[nodiscard]] std::optional<double> fps() const { return fps_; }
    /// How many frames there are, where that is known.
    [[nodiscard]] std::optional<std::int64_t> frames() const { return frames_; }
    /// What whoever reads it should be told at its end, where there is something.
    [[nodiscard]] const std::optional<std::string>& warning() const { return warning_; }

   protected:
    /// What a read gives: camera bytes as `spec` says. No picture is the end, unless one came `broken`.
    struct Read {
        Picture picture = {};
        std::optional<std::int64_t> captured_ns = std::nullopt;  // where the kind knows better than now
        bool fits = true;
        bool broken = false;
        std::int64_t skipped = 0;
    };

    virtual Read read() = 0;
    /// Releases what the kind holds; called once.
    virtual void release() {}

    /// Whether somebody wants it to end: a read that waits had better look at it now and then.
    [[nodiscard]] bool closed() const { return closed_; }
    /// Whether a frame of the right size came before, from this or from the source this was reopened from.
    [[nodiscard]] bool fitted() const { return fitted_; }
    void set_fitted(bool fitted) { fitted_ = fitted; }

    [[nodiscard]] Policy policy() const { return policy_; }

    void set_live(bool live) { live_ = live; }
    void set_fps(std::optional<double> fps) { fps_ = fps; }
    void set_frames(std::optional<std::int64_t> frames) { frames_ = frames; }
    void set_warning(std::string warning) { warning_ = std::move(warning); }

   private:
    std::string location_;
    FrameSpec spec_;
    bool live_ = false;
    Policy policy_ = Policy::every;
    std::optional<double> fps_;
    std::optional<std::int64_t> frames_;
    std::optional<std::string> warning_;
    std::int64_t count_ = 0;
    std::atomic<bool> fitted_ = false;
    std::atomic<bool> closed_ = false;
    std::mutex mutex_;
    bool reading_ = false;
};

}  // namespace derain
