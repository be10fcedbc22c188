#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "derain/stream/latency.hpp"

namespace derain {
namespace {

/// numpy's: linear between neighbours.
double quantile(std::vector<std::int64_t> durations, double share) {
    std::ranges::sort(durations);
    const double rank = share * static_cast<double>(durations.size() - 1);
    const auto below = static_cast<std::size_t>(rank);
    const auto above = std::min(below + 1, durations.size() - 1);
    return std::lerp(static_cast<double>(durations[below]), static_cast<double>(durations[above]),
                     rank - std::floor(rank));
}

TEST(Latency, PercentilesAreNumpysInMillisecondsWithinA500thAndTheMaximumIsExact) {
    std::mt19937_64 random(0);
    std::vector<std::int64_t> durations(5000);
    std::ranges::generate(durations, [&] { return static_cast<std::int64_t>(1'000 + random() % 50'000'000); });
    Histogram histogram;
    for (const auto ns : durations) {
        histogram.add(ns);
    }
    const auto seen = histogram.percentiles();
    EXPECT_NEAR(seen.p50 / (quantile(durations, 0.5) / 1e6), 1, 0.002);
    EXPECT_NEAR(seen.p90 / (quantile(durations, 0.9) / 1e6), 1, 0.002);
    EXPECT_NEAR(seen.p99 / (quantile(durations, 0.99) / 1e6), 1, 0.002);
    EXPECT_NEAR(seen.p999 / (quantile(durations, 0.999) / 1e6), 1, 0.002);
    EXPECT_DOUBLE_EQ(seen.max, static_cast<double>(*std::ranges::max_element(durations)) / 1e6);
    EXPECT_EQ(histogram.total(), std::accumulate(durations.begin(), durations.end(), std::int64_t{0}));
}

TEST(Latency, AnyQuantileOfAnyDurationsIsNumpysWithinA500th) {
    for (unsigned seed = 0; seed < 300; ++seed) {
        std::mt19937_64 random(seed);
        std::vector<std::int64_t> durations(1 + random() % 50);
        std::ranges::generate(
            durations, [&] { return static_cast<std::int64_t>((random() % 1'000'000'000'000) >> (random() % 40)); });
        Histogram histogram;
        for (const auto ns : durations) {
            histogram.add(ns);
        }
        const auto share = std::generate_canonical<double, 53>(random);
        const double expected = quantile(durations, share);
        EXPECT_NEAR(histogram.quantile(share), expected, std::max(0.5, expected * 0.002)) << "seed " << seed;
        EXPECT_EQ(histogram.count(), static_cast<std::int64_t>(durations.size()));
    }
}

TEST(Latency, ADurationThatIsNoneCountsAsTheNearestOneThereIs) {
    Histogram histogram;
    for (const auto ns : {std::numeric_limits<std::int64_t>::min(), std::int64_t{-1}}) {
        histogram.add(ns);
        EXPECT_EQ(histogram.percentiles().max, 0);
    }
    constexpr std::int64_t thirteen_days_ns = std::int64_t{1} << 50;
    for (int count = 0; count < 2; ++count) {
        histogram.add(std::numeric_limits<std::int64_t>::max());
    }
    EXPECT_EQ(histogram.count(), 4);
    EXPECT_EQ(histogram.total(), 2 * thirteen_days_ns);
    EXPECT_DOUBLE_EQ(histogram.quantile(1), thirteen_days_ns);
    EXPECT_NEAR(histogram.quantile(0.9) / thirteen_days_ns, 1, 0.002);
}

TEST(Latency, StagesAreApart) {
    Latency latency;
    latency.add(Stage::capture, 1'000'000);
    latency.add(Stage::present, 3'000'000);
    EXPECT_EQ(latency.of(Stage::inference).count(), 0);
    EXPECT_NEAR(latency.of(Stage::present).percentiles().p50, 3, 0.006);
}

}  // namespace
}  // namespace derain
