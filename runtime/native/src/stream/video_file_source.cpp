/// `file:///clip.mp4`: a video file, decoded by OpenCV's FFmpeg.
#include <filesystem>
#include <opencv2/videoio.hpp>

#include "container.hpp"
#include "decoded.hpp"
#include "derain/error.hpp"
#include "kinds.hpp"

namespace derain {

namespace {

constexpr std::int64_t most_damaged = 300;  // in succession, behind which nothing more is looked for

/// Every frame of a clip; one that is cut short throws Error after its last frame.
class VideoFile final : public DecodedSource {
   public:
    VideoFile(const std::string& path, const FrameSpec& spec) : DecodedSource(path, spec) {
        if (!std::filesystem::is_regular_file(path)) {
            throw Error(path + ": no such file: give the path of a video");
        }
        // Absolute, or FFmpeg takes what stands before a colon for a protocol.
        if (!video_.open(std::filesystem::absolute(path).string(), cv::CAP_FFMPEG)) {
            throw Error(path + ": " + std::to_string(std::filesystem::file_size(path)) +
                        " bytes that are no video, or an unfinished one: record or copy it again");
        }
        if (const double fps = video_.get(cv::CAP_PROP_FPS); fps > 0) {
            set_fps(fps);
        }
        if (const auto count = static_cast<std::int64_t>(video_.get(cv::CAP_PROP_FRAME_COUNT)); count > 0) {
            set_frames(count);
        }
    }

    [[nodiscard]] std::unique_ptr<Source> reopened() const override {
        return std::make_unique<VideoFile>(location(), spec());
    }

   private:
    Read read() override {
        cv::Mat image = target();
        std::int64_t unread = 0;
        while (!video_.read(image)) {  // whether the clip goes on behind what is damaged shows only then
            if (!frames() || decoded_ + damaged_ + unread >= *frames() || unread >= most_damaged) {
                return end();
            }
            ++unread;
            image = target();
        }
        damaged_ += unread;
        ++decoded_;
        return from(image, location());
    }

    Read end() {
        if (damaged_ > 0) {
            set_warning(location() + ": " + std::to_string(damaged_) + " of its frames are damaged and left out");
        }
        if (!frames() || decoded_ + damaged_ >= *frames()) {
            return {};
        }
        if (is_cut_short(location())) {
            throw Error(location() + ": truncated, the decoder stopped after " + std::to_string(decoded_) + " of " +
                        std::to_string(*frames()) + " frames: copy it again, or re-encode what is left of it");
        }
        set_warning(location() + ": " + std::to_string(decoded_) + " frames came, its duration is that of " +
                    std::to_string(*frames()) + ": it is damaged, or its rate varies, it hides some, or its sound is " +
                    "longer than its picture");
        return {};
    }

    void release() override { video_.release(); }

    cv::VideoCapture video_;
    std::int64_t decoded_ = 0;
    std::int64_t damaged_ = 0;
};

}  // namespace

std::unique_ptr<Source> video_file_source(const std::string& location, const FrameSpec& spec) {
    return std::make_unique<VideoFile>(location, spec);
}

}  // namespace derain
