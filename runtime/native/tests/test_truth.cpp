#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "stream_support.hpp"
#include "truth.hpp"

namespace derain {
namespace {

using testing::grey;

constexpr double one_level_db = 48.1308;  // 20 log10 of 255

/// A truth of grey levels 0, 1, 2, ….
TruthComparison truth_of(int frames) {
    std::vector<Picture> pictures;
    pictures.reserve(static_cast<std::size_t>(frames));
    for (int level = 0; level < frames; ++level) {
        pictures.push_back(grey(level));
    }
    return {std::make_unique<testing::MemorySource>(std::move(pictures), frames), testing::make_spec(),
            testing::make_spec("clean")};
}

TEST(Truth, AFrameThatEqualsItCountsAs100DecibelsAndNotAsNoEnd) {
    auto comparison = truth_of(2);
    comparison.add(grey(1).bytes(), grey(0).bytes());
    comparison.add(grey(0).bytes(), grey(0).bytes());
    const auto mean = comparison.mean();
    EXPECT_NEAR(mean["input"].get<double>(), one_level_db, 1e-3);
    EXPECT_NEAR(mean["output"].get<double>(), (100 + one_level_db) / 2, 1e-3);
}

TEST(Truth, OnlyWhereEveryFrameEqualsItThereIsNoNumber) {
    auto comparison = truth_of(2);
    comparison.add(grey(0).bytes(), grey(0).bytes());
    comparison.add(grey(2).bytes(), grey(1).bytes());
    const auto mean = comparison.mean();
    EXPECT_TRUE(mean["output"].is_null()) << mean;
    EXPECT_FALSE(mean["input"].is_null()) << mean;
}

TEST(Truth, ItMustHaveAsManyFramesAsTheSource) {
    auto comparison = truth_of(2);
    comparison.add(grey(0).bytes(), grey(0).bytes());
    EXPECT_NE(testing::fault([&] { comparison.mean(); }).find("more than the source's 1 frames"), std::string::npos);
    auto other = truth_of(1);
    other.add(grey(0).bytes(), grey(0).bytes());
    EXPECT_NE(testing::fault([&] { other.add(grey(1).bytes(), grey(1).bytes()); }).find("ends after 1 frames"),
              std::string::npos);
}

}  // namespace
}  // namespace derain
