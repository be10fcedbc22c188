#include "stream_clock.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "derain/stream/clock.hpp"

namespace derain {

namespace {

// How much longer a second of a camera's clock may last than ours: crystals hardly differ, but where 30/1.001 frames a
// second are stamped as 30 each lasts 1 ms longer.
constexpr double skew = 1.2e-3;

}  // namespace

std::int64_t StreamClock::captured_ns(std::int64_t stamp_ns, std::int64_t came_ns) {
    const auto before_ns = std::exchange(stamp_ns_, stamp_ns);
    if (stamp_ns <= before_ns) {
        offset_ns_.reset();
        return came_ns;
    }
    auto offset_ns = static_cast<double>(came_ns - stamp_ns);
    if (offset_ns_ && offset_ns - *offset_ns_ < static_cast<double>(oldest_ns)) {
        offset_ns = std::min(offset_ns, *offset_ns_ + skew * static_cast<double>(stamp_ns - before_ns));
    }
    offset_ns_ = offset_ns;
    return std::llround(static_cast<double>(stamp_ns) + offset_ns);
}

}  // namespace derain
