#include "derain/frame.hpp"

#include "derain/error.hpp"
#include "words.hpp"

namespace derain {

namespace {

constexpr Words<Pixels, 4> pixel_words{
    {{"bgr8", Pixels::bgr8}, {"rgb8", Pixels::rgb8}, {"nv12", Pixels::nv12}, {"uyvy", Pixels::uyvy}}};

}  // namespace

std::string_view to_string(Pixels pixels) { return word_of(pixel_words, pixels); }

Pixels parse_pixels(std::string_view word) { return value_of(pixel_words, word); }

bool FrameSpec::same_format(const FrameSpec& other) const {
    return width == other.width && height == other.height && pixels == other.pixels && matrix == other.matrix &&
           range == other.range;
}

std::vector<std::int64_t> FrameSpec::shape() const {
    switch (pixels) {
        case Pixels::nv12:
            return {1, height * 3 / 2, width};
        case Pixels::uyvy:
            return {1, height, width, 2};
        default:
            return {1, height, width, 3};
    }
}

std::size_t FrameSpec::bytes() const {
    const auto area = static_cast<std::size_t>(width) * static_cast<std::size_t>(height);
    switch (pixels) {
        case Pixels::nv12:
            return area * 3 / 2;
        case Pixels::uyvy:
            return area * 2;
        default:
            return area * 3;
    }
}

}  // namespace derain
