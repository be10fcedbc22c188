#include <gtest/gtest.h>

#include "derain/stream/plausibility.hpp"
#include "stream_support.hpp"

namespace derain {
namespace {

class InEveryFormat : public ::testing::TestWithParam<Pixels> {
   protected:
    FrameSpec spec_{.tensor = "frame", .width = 128, .height = 96, .pixels = GetParam()};
    Plausibility plausibility_{spec_, spec_};
    std::vector<Picture> pictures_ = testing::noise(5, spec_.bytes());

    std::optional<std::string> fault(const Picture& image, const Picture& clean) {
        return plausibility_.fault(image.bytes(), clean.bytes());
    }
};

TEST_P(InEveryFormat, AGoodOutputHasNoFaultFrameAfterFrame) {
    for (const auto& picture : pictures_) {
        EXPECT_FALSE(fault(picture, picture));
    }
}

TEST_P(InEveryFormat, AFlatOutputIsFound) {
    for (const int level : {0, 16, 255}) {
        EXPECT_EQ(fault(pictures_[0], testing::grey(level, spec_.bytes())),
                  "the output is flat, " + std::to_string(level) + " everywhere, the input is not");
    }
}

TEST_P(InEveryFormat, AFlatOutputOfAFlatInputIsRight) {
    const auto dark = testing::grey(7, spec_.bytes());
    EXPECT_FALSE(fault(dark, dark));
}

TEST_P(InEveryFormat, AFrozenOutputIsFoundWhereTheInputMovesAndOnlyThere) {
    EXPECT_FALSE(fault(pictures_[0], pictures_[0]));
    EXPECT_FALSE(fault(pictures_[0], pictures_[0]));
    const auto frozen = fault(pictures_[1], pictures_[0]);
    ASSERT_TRUE(frozen);
    EXPECT_TRUE(frozen->starts_with("the output is frozen while the input moves by ")) << *frozen;
    EXPECT_FALSE(fault(pictures_[1], pictures_[1]));
}

TEST_P(InEveryFormat, TheSampleIsLumaAndSmallWhateverTheSize) {
    for (const auto& [width, height] : {std::pair(2, 2), std::pair(32, 16), std::pair(1920, 1080)}) {
        const FrameSpec spec{.tensor = "frame", .width = width, .height = height, .pixels = GetParam()};
        const auto picture = testing::grey(9, spec.bytes());
        const auto pixels = static_cast<std::size_t>(width) * static_cast<std::size_t>(height);
        const auto bytes = picture.writable();
        // Luma everywhere, and only luma: 200. Green is the second byte of three, uyvy's Y the second of two.
        for (std::size_t pixel = 0; pixel < pixels; ++pixel) {
            const std::size_t at = spec.pixels == Pixels::nv12   ? pixel
                                   : spec.pixels == Pixels::uyvy ? pixel * 2 + 1
                                                                 : pixel * 3 + 1;
            bytes[at] = std::byte{200};
        }
        std::vector<std::uint8_t> sample;
        luma_sample(picture.bytes(), spec, sample);
        EXPECT_LE(sample.size(), 64U * 2 * 48 * 2);
        EXPECT_GE(sample.size(), std::min<std::size_t>(pixels, 3072));
        EXPECT_TRUE(std::ranges::all_of(sample, [](std::uint8_t luma) { return luma == 200; }));
    }
}

INSTANTIATE_TEST_SUITE_P(Plausibility, InEveryFormat,
                         ::testing::Values(Pixels::bgr8, Pixels::rgb8, Pixels::nv12, Pixels::uyvy));

}  // namespace
}  // namespace derain
