#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "stream_clock.hpp"

namespace derain {
namespace {

/// How old frames are, in ms, that a stream stamped with `positions` and that came at `came`.
std::vector<double> ages_ms(const std::vector<double>& positions, const std::vector<double>& came) {
    const auto ns = [](double ms) { return static_cast<std::int64_t>(std::llround(ms * 1e6)); };
    StreamClock clock;
    std::vector<double> ages;
    for (std::size_t index = 0; index < came.size(); ++index) {
        const auto captured_ns = clock.captured_ns(ns(positions[index]), ns(came[index]));
        ages.push_back(came[index] - static_cast<double>(captured_ns) / 1e6);
    }
    return ages;
}

void expect_near(const std::vector<double>& seen, const std::vector<double>& expected) {
    ASSERT_EQ(seen.size(), expected.size());
    for (std::size_t index = 0; index < seen.size(); ++index) {
        EXPECT_NEAR(seen[index], expected[index], 0.2) << index;
    }
}

TEST(StreamClock, AFrameThatWaitedOnItsWayIsAsOldAsItIs) {
    expect_near(ages_ms({40, 80, 120, 160, 200}, {1000, 1040, 3080, 3085, 1200}), {0, 0, 2000, 1965, 40});
}

TEST(StreamClock, AStreamWithoutTimesOrWhoseTimesBeginAnewGivesFramesOfNow) {
    expect_near(ages_ms({25, 25, 25}, {1000, 1040, 3080}), {0, 0, 0});
    expect_near(ages_ms({90000, 90040, 40, 80, 120}, {1000, 1040, 1080, 1120, 1160}), {0, 0, 0, 0, 0});
    expect_near(ages_ms({40, 20000, 20040}, {1000, 1040, 90000}), {0, 0, 0});
}

TEST(StreamClock, ACamerasSlowerClockMakesNoFrameOld) {
    for (const double slower : {1e-4, 1e-3}) {  // a crystal; 30/1.001 frames a second, stamped as 30
        std::vector<double> positions;
        std::vector<double> came;
        for (int index = 0; index < 2000; ++index) {
            positions.push_back(40 * (1 - slower) * (index + 1));
            came.push_back(1000 + 40.0 * index);
        }
        for (const double age : ages_ms(positions, came)) {
            ASSERT_LT(age, 0.1) << slower;
        }
    }
}

}  // namespace
}  // namespace derain
