/// `rtsp://user:password@host:554/path`, a network camera through OpenCV's FFmpeg over TCP. It is never shown with its
/// credentials.
#include <cmath>
#include <opencv2/videoio.hpp>

#include "decoded.hpp"
#include "derain/error.hpp"
#include "derain/stream/clock.hpp"
#include "derain/stream/redact.hpp"
#include "kinds.hpp"
#include "stream_clock.hpp"

namespace derain {

namespace {

// Then the camera counts as away; FFmpeg's own 30 s would be a long frozen picture.
constexpr int open_ms = 5000;
constexpr int read_ms = 3000;

/// Frames without end; Error when the camera delivers none any more.
class NetworkCamera final : public DecodedSource {
   public:
    NetworkCamera(const std::string& uri, const FrameSpec& spec)
        : DecodedSource(redact(uri), spec),
          uri_(uri),
          video_(uri, cv::CAP_FFMPEG,
                 {cv::CAP_PROP_OPEN_TIMEOUT_MSEC, open_ms, cv::CAP_PROP_READ_TIMEOUT_MSEC, read_ms}) {
        if (!video_.isOpened()) {
            throw Error(location() + ": no stream: check address, credentials and that the camera is on");
        }
        set_live(true);
        set_fps(believed(video_.get(cv::CAP_PROP_FPS)));
    }

    [[nodiscard]] std::unique_ptr<Source> reopened() const override {
        auto source = std::make_unique<NetworkCamera>(uri_, spec());
        source->set_fitted(fitted());
        return source;
    }

   private:
    Read read() override {
        cv::Mat image = target();
        const bool grabbed = video_.grab();
        const auto came_ns = monotonic_ns();  // before what is left to decode and convert here
        if (!grabbed || !video_.retrieve(image)) {
            throw Error(location() + ": the stream broke off: check the camera and the network");
        }
        const auto stamp_ns = std::llround(video_.get(cv::CAP_PROP_POS_MSEC) * 1e6);
        Read got = from(image, location());
        got.captured_ns = clock_.captured_ns(stamp_ns, came_ns);
        return got;
    }

    void release() override { video_.release(); }

    std::string uri_;
    cv::VideoCapture video_;
    StreamClock clock_;
};

}  // namespace

std::unique_ptr<Source> network_camera_source(const std::string& location, const FrameSpec& spec) {
    return std::make_unique<NetworkCamera>("rtsp:" + std::string(location.starts_with("//") ? "" : "//") + location,
                                           spec);
}

}  // namespace derain
