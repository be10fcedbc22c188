#include "derain/stream/queue.hpp"

#include <utility>

#include "derain/stream/records.hpp"

namespace derain {

namespace {
constexpr std::size_t dropped_in_advance = 64;  // many seconds of a camera while a sink is busy with one frame
}

std::string_view to_string(Policy policy) { return policy == Policy::latest ? "latest" : "every"; }

std::optional<Policy> parse_policy(std::string_view text) {
    if (text == "latest") {
        return Policy::latest;
    }
    return text == "every" ? std::optional(Policy::every) : std::nullopt;
}

FrameQueue::FrameQueue(Policy policy, std::function<void()> on_change)
    : policy_(policy), on_change_(std::move(on_change)) {
    dropped_.reserve(dropped_in_advance);
}

bool FrameQueue::put(Frame frame) {
    Frame displaced;  // let go after the lock: its store takes one of its own
    {
        std::unique_lock lock(mutex_);
        if (policy_ == Policy::every && !frame.broken) {
            room_.wait(lock, [this] { return closed_ || size_ < depth(policy_); });
        }
        if (closed_) {
            return false;
        }
        if (!frame.broken && size_ == depth(policy_)) {
            displaced = pop();
            dropped_.push_back({displaced.id, displaced.captured_ns, Why::newer, displaced.asked_ns});
        }
        for (auto skipped = frame.id - frame.skipped; skipped < frame.id; ++skipped) {
            dropped_.push_back({skipped, frame.captured_ns, Why::newer, frame.asked_ns});
        }
        if (frame.broken) {
            dropped_.push_back({frame.id, frame.captured_ns, Why::broken, frame.asked_ns});
        } else {
            ring_[(first_ + size_++) % ring_.size()] = std::move(frame);
        }
    }
    on_change_();
    return true;
}

std::optional<Frame> FrameQueue::take() {
    const std::scoped_lock lock(mutex_);
    if (size_ == 0) {
        return std::nullopt;
    }
    room_.notify_one();
    return pop();
}

void FrameQueue::take_dropped(std::vector<Dropped>& dropped) {
    dropped.clear();
    const std::scoped_lock lock(mutex_);
    dropped_.swap(dropped);
}

void FrameQueue::close() {
    {
        const std::scoped_lock lock(mutex_);
        closed_ = true;
        room_.notify_all();
    }
    on_change_();
}

std::size_t FrameQueue::size() const {
    const std::scoped_lock lock(mutex_);
    return size_;
}

bool FrameQueue::ended() const {
    const std::scoped_lock lock(mutex_);
    return closed_ && size_ == 0 && dropped_.empty();
}

Frame FrameQueue::pop() {
    Frame frame = std::exchange(ring_[first_], {});
    first_ = (first_ + 1) % ring_.size();
    --size_;
    return frame;
}

}  // namespace derain
