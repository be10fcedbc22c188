/// The one clock of all times: CLOCK_MONOTONIC in ns, which Python's `time.monotonic_ns()` reads too.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>

namespace derain {

/// Gives the time; one that is only a number lets a test run in a time of its own.
using Clock = std::function<std::int64_t()>;

inline constexpr std::int64_t second_ns = 1'000'000'000;

inline std::int64_t monotonic_ns() {
    return std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// A live frame that seems as old as this has a time of another clock.
inline constexpr std::int64_t oldest_ns = 10 * second_ns;

/// The time that somebody else tells of a frame, where it can be of our clock; else `now_ns`. One that is too old or
/// yet to come is of another.
inline std::int64_t of_our_clock(std::int64_t told_ns, std::int64_t now_ns) {
    return told_ns <= now_ns && told_ns > now_ns - oldest_ns ? told_ns : now_ns;
}

}  // namespace derain
