#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace derain {

/// The bytes a camera delivers, uint8.
enum class Pixels { bgr8, rgb8, nv12, uyvy };

/// As the manifest spells it: "bgr8", "rgb8", "nv12" or "uyvy".
std::string_view to_string(Pixels pixels);

/// The format a manifest or a command line names; Error for any other word.
Pixels parse_pixels(std::string_view word);

/// A frame at the graph's edge: the tensor's name and the camera bytes in it, rows without padding.
///
/// bgr8 and rgb8 ignore the colour keys. The defaults are what USB cameras mean by YCbCr.
struct FrameSpec {
    std::string tensor;
    int width = 0;
    int height = 0;
    Pixels pixels = Pixels::bgr8;
    std::string matrix = "bt601";   ///< "bt601" or "bt709"
    std::string range = "limited";  ///< "full" or "limited"

    /// Whether both mean the same by a frame's bytes: all is equal but the tensor's name.
    [[nodiscard]] bool same_format(const FrameSpec& other) const;

    /// The size of one frame: 3·W·H for bgr8 and rgb8, 3/2·W·H for nv12, 2·W·H for uyvy.
    [[nodiscard]] std::size_t bytes() const;

    /// The tensor's: [1, H, W, 3] for bgr8 and rgb8, [1, H·3/2, W] for nv12, [1, H, W, 2] for uyvy.
    [[nodiscard]] std::vector<std::int64_t> shape() const;
};

}  // namespace derain
