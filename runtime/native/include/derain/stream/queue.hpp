/// The bounded queue between the capture thread and the loop, and the policies that say what a full one does.
#pragma once

#include <array>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <string_view>
#include <vector>

#include "derain/stream/picture.hpp"

namespace derain {

enum class Why;  // records.hpp

/// One frame as the camera delivers it.
///
/// `id` counts from 0 in the source's order; `captured_ns` is `monotonic_ns()` when the bytes were complete on the
/// host, or the camera's own earlier time, `asked_ns` when the source was asked for them. `skipped` frames came before
/// it and were left out for it; the ids before its own are theirs. `fits` is false where a live camera changed its size
/// and this is a scaled picture to show raw, not one to derain. A frame that came cut short is `broken` and has no
/// picture, since half a one is none to show.
struct Frame {
    std::int64_t id = 0;
    std::int64_t captured_ns = 0;
    std::int64_t asked_ns = 0;
    Picture picture = {};
    bool fits = true;
    bool broken = false;
    std::int64_t skipped = 0;
};

/// What happens to a frame that arrives while the one before it still waits for the engine.
enum class Policy {
    /// A driver needs the newest picture: a queue would show an ever older world through a slow engine.
    latest,
    /// A clip must come out whole: the source waits for the engine, and nothing is lost.
    every,
};

std::string_view to_string(Policy policy);
std::optional<Policy> parse_policy(std::string_view text);

/// Frames that may wait. Latest: only the newest is ever wanted, more would be age without use. Every: one being
/// decoded while one waits keeps a file's engine busy, more would only be memory.
constexpr std::size_t depth(Policy policy) { return policy == Policy::latest ? 1 : 2; }

/// Frames in the order they were put, at most `depth(policy)`; `on_change` is called after each put and at the end.
///
/// One thread puts, one takes. Under `latest` a put never waits: it takes the place of the frame that waited, which
/// `take_dropped` then gives, as it does those that a frame's source skipped for it. Under `every` a put waits for
/// room. A broken frame takes no place: it is dropped at once.
class FrameQueue {
   public:
    struct Dropped {
        std::int64_t id;
        std::int64_t captured_ns;
        Why why;
        std::int64_t asked_ns;
    };

    explicit FrameQueue(
        Policy policy, std::function<void()> on_change = [] {});

    /// Adds a frame; false where the queue was closed, before or while this waited for room.
    bool put(Frame frame);
    /// The frame that waited longest, if any; it never waits.
    std::optional<Frame> take();
    /// Puts each frame dropped since the last call into `dropped`, in place of what is there.
    void take_dropped(std::vector<Dropped>& dropped);
    /// No frame will be added any more; those that wait can still be taken.
    void close();

    [[nodiscard]] std::size_t size() const;
    /// Closed and empty, and every dropped frame told.
    [[nodiscard]] bool ended() const;
    [[nodiscard]] Policy policy() const { return policy_; }

   private:
    Frame pop();

    const Policy policy_;
    const std::function<void()> on_change_;
    mutable std::mutex mutex_;
    std::condition_variable room_;
    std::array<Frame, 2> ring_;
    std::size_t first_ = 0;
    std::size_t size_ = 0;
    std::vector<Dropped> dropped_;
    bool closed_ = false;
};

}  // namespace derain
