/// Whether an engine's output can be a picture of its input.
///
/// A graph's uint8 output cannot hold NaN or infinity; what they leave behind is a flat picture, black in most cases,
/// since the cast makes them 0 or 255. An engine whose copies fail silently shows the frame before. Both are looked for
/// in the luma at about 48 by 64 points; a full comparison would read 12 MB a frame at 1920x1080.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "derain/frame.hpp"

namespace derain {

/// Fills `sample` with about 48x64 luma points of camera bytes, green for bgr8 and rgb8.
void luma_sample(std::span<const std::byte> image, const FrameSpec& spec, std::vector<std::uint8_t>& sample);

/// Judges outputs one after the other.
class Plausibility {
   public:
    Plausibility(const FrameSpec& input, const FrameSpec& output) : input_(input), output_(output) {}

    /// Why `clean` cannot be the derained `image`; nothing where it may be.
    std::optional<std::string> fault(std::span<const std::byte> image, std::span<const std::byte> clean);

   private:
    struct Samples {
        std::vector<std::uint8_t> raw, derained;
    };

    FrameSpec input_, output_;
    Samples now_, last_;
    bool has_last_ = false;
};

}  // namespace derain
