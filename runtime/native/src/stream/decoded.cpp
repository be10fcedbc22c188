#include "decoded.hpp"

#include <utility>

#include "convert.hpp"

namespace derain {

namespace {
constexpr std::size_t pictures_in_advance = 5;  // one each: being made, waiting (two), with the engine, with the sink
}

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
