/// `rtsp://user:password@host:554/path`, a network camera through OpenCV's FFmpeg over TCP, and `gst:PIPELINE`, a
/// GStreamer pipeline where OpenCV was built with GStreamer. Neither is ever shown with its credentials.
#include <opencv2/videoio.hpp>
#include <opencv2/videoio/registry.hpp>

#include "decoded.hpp"
#include "derain/error.hpp"
#include "derain/stream/redact.hpp"
#include "kinds.hpp"

namespace derain {

namespace {

// Then the camera counts as away; FFmpeg's own 30 s would be a long frozen picture.
constexpr int open_ms = 5000;
constexpr int read_ms = 3000;
// A pipeline without an appsink gets one that holds the newest frame only.
constexpr const char* appsink = " ! videoconvert ! video/x-raw,format=BGR ! appsink drop=true max-buffers=1 sync=false";

/// Frames without end from an open capture; Error, which ends with `mend`, when it delivers none any more.
class LiveCapture final : public DecodedSource {
   public:
    LiveCapture(std::string uri, std::string mend, MakeSource* again, const FrameSpec& spec,
                const cv::VideoCapture& video)
        : DecodedSource(redact(uri), spec), uri_(std::move(uri)), mend_(std::move(mend)), again_(again), video_(video) {
        set_live(true);
        if (const double fps = video_.get(cv::CAP_PROP_FPS); fps > 0) {
            set_fps(fps);
        }
    }

    [[nodiscard]] std::unique_ptr<Source> reopened() const override {
        auto source = again_(uri_.substr(uri_.find(':') + 1), spec());
        static_cast<LiveCapture&>(*source).set_fitted(fitted());
        return source;
    }

   private:
    Read read() override {
        cv::Mat image = target();
        if (!video_.read(image)) {
            throw Error(location() + ": " + mend_);
        }
        return from(image, location());
    }

    void release() override { video_.release(); }

    std::string uri_;
    std::string mend_;
    MakeSource* again_;
    cv::VideoCapture video_;
};

}  // namespace

std::unique_ptr<Source> network_camera_source(const std::string& location, const FrameSpec& spec) {
    const std::string uri = "rtsp:" + std::string(location.starts_with("//") ? "" : "//") + location;
    cv::VideoCapture video(uri, cv::CAP_FFMPEG,
                           {cv::CAP_PROP_OPEN_TIMEOUT_MSEC, open_ms, cv::CAP_PROP_READ_TIMEOUT_MSEC, read_ms});
    if (!video.isOpened()) {
        throw Error(redact(uri) + ": no stream: check address, credentials and that the camera is on");
    }
    return std::make_unique<LiveCapture>(uri, "the stream broke off: check the camera and the network",
                                         network_camera_source, spec, std::move(video));
}

std::unique_ptr<Source> gst_source(const std::string& location, const FrameSpec& spec) {
    const std::string uri = "gst:" + location;
    if (!cv::videoio_registry::hasBackend(cv::CAP_GSTREAMER)) {
        throw Error(redact(uri) + ": this OpenCV has no GStreamer: use the distribution's OpenCV");
    }
    const bool has_sink = location.find("appsink") != std::string::npos;
    cv::VideoCapture video(has_sink ? location : location + appsink, cv::CAP_GSTREAMER);
    if (!video.isOpened()) {
        throw Error(redact(uri) + ": does not start: try it with `gst-launch-1.0`");
    }
    return std::make_unique<LiveCapture>(uri, "the pipeline ended: try it with `gst-launch-1.0`", gst_source, spec,
                                         std::move(video));
}

}  // namespace derain
