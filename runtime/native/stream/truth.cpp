#include "truth.hpp"

#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "convert.hpp"
#include "derain/error.hpp"

namespace derain {

namespace {

/// Infinite for identical images.
double psnr(const cv::Mat& image, const cv::Mat& truth) {
    const double error = cv::norm(image, truth, cv::NORM_L2SQR) / static_cast<double>(truth.total() * 3);
    return 10 * std::log10(255.0 * 255.0 / error);
}

nlohmann::ordered_json finite(double value) {
    return std::isfinite(value) ? nlohmann::ordered_json(value) : nlohmann::ordered_json(nullptr);
}

}  // namespace

TruthComparison::TruthComparison(std::unique_ptr<Source> truth, const FrameSpec& input, const FrameSpec& output)
    : truth_(std::move(truth)), input_(input), output_(output) {}

void TruthComparison::add(std::span<const std::byte> image, std::span<const std::byte> clean) {
    const auto frame = truth_->next();
    if (!frame) {
        throw Error(truth_->location() + ": the truth ends after " + std::to_string(frames_) +
                    " frames, the source has more: align them");
    }
    const cv::Mat truth = to_bgr(frame->picture.bytes(), truth_->spec());
    input_db_ += psnr(to_bgr(image, input_), truth);
    output_db_ += psnr(to_bgr(clean, output_), truth);
    ++frames_;
}

nlohmann::ordered_json TruthComparison::mean() {
    if (truth_->next()) {
        throw Error(truth_->location() + ": the truth has more than the source's " + std::to_string(frames_) +
                    " frames: align them");
    }
    const auto count = static_cast<double>(frames_);
    return {{"input", finite(input_db_ / count)}, {"output", finite(output_db_ / count)}};
}

}  // namespace derain
