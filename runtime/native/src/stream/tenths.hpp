/// A duration as messages tell it.
#pragma once

#include <cmath>
#include <string>

namespace derain {

/// Seconds with one decimal.
inline std::string tenths(double seconds) {
    const auto whole = std::lround(seconds * 10);
    return std::to_string(whole / 10) + "." + std::to_string(whole % 10);
}

}  // namespace derain
