/// How near frames are to the truth.
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <span>

#include "derain/stream/source.hpp"

namespace derain {

/// PSNR in RGB, in dB, of raw and derained frames against the truth, a bgr8 source; `add` takes its next frame.
class TruthComparison {
   public:
    TruthComparison(std::unique_ptr<Source> truth, const FrameSpec& input, const FrameSpec& output);

    /// Compares a frame's camera bytes and what went out; Error where the truth has already ended.
    void add(std::span<const std::byte> image, std::span<const std::byte> clean);
    /// The mean over frames, `input` and `output`, where an equal one counts as 100 dB; null where all are equal. Error
    /// where the truth goes on.
    nlohmann::ordered_json mean();
    [[nodiscard]] const std::string& location() const { return truth_->location(); }

   private:
    struct Sum {
        double db = 0;
        bool equal = true;  // every frame
    };

    std::unique_ptr<Source> truth_;
    FrameSpec input_, output_;
    std::int64_t frames_ = 0;
    Sum raw_, clean_;
};

}  // namespace derain
