#include "derain/stream/source.hpp"

#include <utility>

#include "derain/error.hpp"
#include "derain/stream/clock.hpp"
#include "finally.hpp"

namespace derain {

std::optional<Frame> Source::next() {
    const auto asked_ns = monotonic_ns();
    {
        const std::scoped_lock lock(mutex_);
        if (closed_) {
            return std::nullopt;
        }
        reading_ = true;
    }
    Read got;
    {
        // However the read ends, who closed it meanwhile left the releasing to this thread.
        const Finally read_ended([this] {
            std::unique_lock lock(mutex_);
            reading_ = false;
            if (closed_) {
                lock.unlock();
                release();
            }
        });
        got = read();
    }
    if (!got.picture && !got.broken) {
        if (count_ == 0 && !closed_) {
            throw Error(location_ + ": holds no frames: check it, or give another --source");
        }
        return std::nullopt;
    }
    fitted_ = fitted_ || !got.broken;
    const auto captured_ns = got.captured_ns.value_or(monotonic_ns());
    count_ += got.skipped;
    return Frame{count_++, captured_ns, asked_ns, std::move(got.picture), got.fits, got.broken, got.skipped};
}

void Source::close() {
    {
        const std::scoped_lock lock(mutex_);
        if (closed_.exchange(true) || reading_) {
            return;
        }
    }
    release();
}

}  // namespace derain
