#include "derain/stream/plausibility.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <utility>

namespace derain {

namespace {
constexpr std::size_t sample_rows = 48;
constexpr std::size_t sample_columns = 64;
constexpr int flat = 2;       // grey levels between the extremes of a flat picture, which may be dithered
constexpr int contrast = 24;  // an input with less than this may come out flat rightly: a dark tunnel, a fogged lens
constexpr double motion = 2;  // mean change of the input that must leave a trace in the output: above sensor noise

int span_of(const std::vector<std::uint8_t>& sample) {
    const auto [low, high] = std::ranges::minmax(sample);
    return high - low;
}

double mean_change(const std::vector<std::uint8_t>& one, const std::vector<std::uint8_t>& other) {
    std::int64_t total = 0;
    for (std::size_t at = 0; at < one.size(); ++at) {
        total += std::abs(int{one[at]} - int{other[at]});
    }
    return static_cast<double>(total) / static_cast<double>(one.size());
}

}  // namespace

void luma_sample(std::span<const std::byte> image, const FrameSpec& spec, std::vector<std::uint8_t>& sample) {
    const auto width = static_cast<std::size_t>(spec.width);
    const auto height = static_cast<std::size_t>(spec.height);
    const std::size_t row_step = std::max<std::size_t>(height / sample_rows, 1);
    const std::size_t column_step = std::max<std::size_t>(width / sample_columns, 1);
    const bool planar = spec.pixels == Pixels::nv12;  // luma alone; else it is, or green is, the pixel's second byte
    const std::size_t pixel = planar ? 1 : spec.pixels == Pixels::uyvy ? 2 : 3;
    sample.clear();
    for (std::size_t row = 0; row < height; row += row_step) {
        const auto line = image.subspan(row * width * pixel, width * pixel);
        for (std::size_t at = planar ? 0 : 1; at < line.size(); at += column_step * pixel) {
            sample.push_back(std::to_integer<std::uint8_t>(line[at]));
        }
    }
}

std::optional<std::string> Plausibility::fault(std::span<const std::byte> image, std::span<const std::byte> clean) {
    std::swap(now_, last_);
    luma_sample(image, input_, now_.raw);
    luma_sample(clean, output_, now_.derained);
    const bool had_last = std::exchange(has_last_, true);
    if (span_of(now_.derained) <= flat && span_of(now_.raw) >= contrast) {
        return "the output is flat, " + std::to_string(now_.derained.front()) + " everywhere, the input is not";
    }
    if (had_last && now_.derained == last_.derained) {
        if (const double change = mean_change(now_.raw, last_.raw); change >= motion) {
            return "the output is frozen while the input moves by " + std::to_string(std::lround(change)) +
                   " grey levels";
        }
    }
    return std::nullopt;
}

}  // namespace derain
