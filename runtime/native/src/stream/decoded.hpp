/// What sources share that get their frames as BGR from OpenCV.
#pragma once

#include <memory>
#include <opencv2/core.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "derain/stream/source.hpp"

namespace derain {

/// A PNG, JPEG, … as BGR [H, W, 3]; empty where `content` is empty, cut short or no picture at all. Error
/// where its values are not of 8 bits, and not of 16 that are all used.
cv::Mat decoded(std::string_view content);

/// What a live source says of its frames a second, where a camera can have that many: up to 240. FFmpeg tells an RTSP
/// stream that declares none as one of 90,000.
std::optional<double> believed(double fps);

/// Makes camera bytes of BGR images, in pictures of a pool.
class DecodedSource : public Source {
   public:
    DecodedSource(std::string location, const FrameSpec& spec);

   protected:
    /// A picture as `spec` says; where a live source changes its size in mid-stream, a scaled one that does not fit.
    ///
    /// `name` is what an Error calls the image.
    Read from(const cv::Mat& bgr, const std::string& name);
    /// A picture to fill.
    Picture blank() { return pool_->take(); }
    /// A picture to decode bgr8 right into, and the image that it is; `from` then copies nothing.
    cv::Mat target();

   private:
    std::shared_ptr<Pool> pool_;
    Picture next_;
};

}  // namespace derain
