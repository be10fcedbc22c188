#include "derain/stream/back_off.hpp"

#include <algorithm>
#include <cmath>

#include "derain/stream/clock.hpp"

namespace derain {

namespace {
constexpr double first_s = 0.1;
constexpr double longest_s = 5;
constexpr std::int64_t window_ns = 60 * second_ns;
}  // namespace

std::optional<double> BackOff::next_s(std::int64_t now_ns) {
    std::erase_if(attempts_, [now_ns](std::int64_t at) { return now_ns - at >= window_ns; });
    if (most_ && attempts_.size() >= *most_) {
        return std::nullopt;
    }
    const double delay = std::min(std::ldexp(first_s, static_cast<int>(attempts_.size())), longest_s);
    attempts_.push_back(now_ns);
    return delay;
}

}  // namespace derain
