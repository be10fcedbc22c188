#include "truth.hpp"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "convert.hpp"
#include "derain/error.hpp"

namespace derain {

namespace {

constexpr double equal_db = 100;  // told for frames that are equal, whose PSNR has no end

/// Infinite for identical images.
double psnr(const cv::Mat& image, const cv::Mat& truth) {
    const double error = cv::norm(image, truth, cv::NORM_L2SQR) / static_cast<double>(truth.total() * 3);
    return 10 * std::log10(255.0 * 255.0 / error);
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
    const auto add = [&truth](Sum& sum, const cv::Mat& seen) {
        const double db = psnr(seen, truth);
        sum.db += std::min(db, equal_db);
        sum.equal = sum.equal && std::isinf(db);
    };
    add(raw_, to_bgr(image, input_));
    add(clean_, to_bgr(clean, output_));
    ++frames_;
}

nlohmann::ordered_json TruthComparison::mean() {
    if (truth_->next()) {
        throw Error(truth_->location() + ": the truth has more than the source's " + std::to_string(frames_) +
                    " frames: align them");
    }
    const auto mean_of = [this](const Sum& sum) {
        return sum.equal ? nlohmann::ordered_json(nullptr)
                         : nlohmann::ordered_json(sum.db / static_cast<double>(frames_));
    };
    return {{"input", mean_of(raw_)}, {"output", mean_of(clean_)}};
}

}  // namespace derain
