#include "decoded.hpp"

#include <cmath>
#include <opencv2/core.hpp>
#include <opencv2/imgcodecs.hpp>
#include <string>
#include <utility>

#include "convert.hpp"
#include "derain/error.hpp"

namespace derain {

namespace {
constexpr std::size_t pictures_in_advance = 5;  // one each: being made, waiting (two), with the engine, with the sink

constexpr double fastest_fps = 240;

constexpr double raw_end = 1 << 12;  // what a camera's raw 10 or 12 bits stay below

/// False for an empty content and for a JPEG without its end: OpenCV fails on the first and pads the second with grey.
///
/// A JPEG's last scan (marker FFDA) is followed by the end of the image (FFD9), which cannot occur inside a scan.
bool is_whole(std::string_view content) {
    const auto last = [content](std::string_view marker) {
        const auto at = content.rfind(marker);
        return at == std::string_view::npos ? -1 : static_cast<std::ptrdiff_t>(at);
    };
    return !content.empty() && (!content.starts_with("\xff\xd8") || last("\xff\xd9") > last("\xff\xda"));
}

}  // namespace

cv::Mat decoded(std::string_view content) {
    if (!is_whole(content)) {
        return {};
    }
    // OpenCV has no view that promises not to write; decoding does not.
    // NOLINTNEXTLINE(cppcoreguidelines-pro-type-const-cast)
    const cv::Mat bytes(1, static_cast<int>(content.size()), CV_8U, const_cast<char*>(content.data()));
    const cv::Mat image = cv::imdecode(bytes, cv::IMREAD_COLOR | cv::IMREAD_ANYDEPTH);
    if (image.empty() || image.depth() == CV_8U) {
        return image;
    }
    double highest = 0;
    cv::minMaxLoc(image.reshape(1), nullptr, &highest);
    if (image.depth() != CV_16U || (highest > 0 && highest < raw_end)) {
        throw Error("holds " + std::string(image.depth() == CV_16U ? "uint16" : "other than integer") +
                    " values up to " + std::to_string(std::llround(highest)) +
                    ", expected 8 bits, or 16 of which all are used: scale it to their full range");
    }
    return cv::imdecode(bytes, cv::IMREAD_COLOR);  // their upper 8
}

std::optional<double> believed(double fps) { return fps > 0 && fps <= fastest_fps ? std::optional(fps) : std::nullopt; }

DecodedSource::DecodedSource(std::string location, const FrameSpec& spec)
    : Source(std::move(location), spec), pool_(Pool::make(spec.bytes(), pictures_in_advance)) {}

Source::Read DecodedSource::from(const cv::Mat& bgr, const std::string& name) {
    Picture picture = next_ ? std::exchange(next_, {}) : pool_->take();
    const bool fits = bgr.cols == spec().width && bgr.rows == spec().height;
    if (!fits && live() && fitted()) {
        from_bgr(scaled(bgr, spec()), spec(), picture.writable(), name);
        return {.picture = std::move(picture), .fits = false};
    }
    from_bgr(bgr, spec(), picture.writable(), name);
    return {.picture = std::move(picture)};
}

cv::Mat DecodedSource::target() {
    if (spec().pixels != Pixels::bgr8) {
        return {};
    }
    next_ = next_ ? std::move(next_) : pool_->take();
    return view(next_.writable(), spec().height, spec().width, 3);
}

}  // namespace derain
