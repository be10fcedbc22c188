/// `file://out.mp4`: a video file, encoded by OpenCV's FFmpeg.
#include <algorithm>
#include <cctype>
#include <cmath>
#include <filesystem>
#include <map>
#include <opencv2/videoio.hpp>

#include "atomic_file.hpp"
#include "convert.hpp"
#include "kinds.hpp"

namespace derain {

namespace {

constexpr double default_fps = 25;  // for sources without a rate of their own, such as a folder of images

constexpr double most_parts = 65535;  // of a second, that MPEG-4 knows

/// A rate in thousandths, or in as many parts of a second as MPEG-4 has a number for: OpenCV asks for 119,933 of them
/// where a clip has 119.933 frames in one.
double coded(double fps) {
    double parts = 1000;
    while (parts > 1 && fps * parts > most_parts) {
        parts /= 10;
    }
    return std::round(std::min(fps, most_parts) * parts) / parts;
}

// Free space to keep: raw frames, one to write and the encoder's own buffer; bytes, as Matroska holds a cluster of 5 MB
// back; and bytes for each frame of the clip, as the container's end lists them all.
constexpr std::uintmax_t margin = 4;
constexpr std::uintmax_t buffered = std::uintmax_t{8} << 20U;
constexpr std::uintmax_t index_entry = 32;

std::optional<int> codec_of(const std::filesystem::path& path) {
    static const std::map<std::string, int> codecs{{".mkv", cv::VideoWriter::fourcc('F', 'F', 'V', '1')},
                                                   {".avi", cv::VideoWriter::fourcc('M', 'J', 'P', 'G')},
                                                   {".mp4", cv::VideoWriter::fourcc('m', 'p', '4', 'v')}};
    auto suffix = path.extension().string();
    std::ranges::transform(suffix, suffix.begin(), [](unsigned char letter) { return std::tolower(letter); });
    const auto codec = codecs.find(suffix);
    return codec == codecs.end() ? std::nullopt : std::optional(codec->second);
}

std::string milliseconds(double ns) { return std::to_string(std::llround(ns / 1e6)) + " ms"; }

/// A clip: lossless FFV1 in .mkv, Motion JPEG in .avi, MPEG-4 in .mp4.
///
/// Written under a temporary name beside the target and renamed at close, also after an error, so that the target is
/// always a whole clip of the frames there were.
///
/// Of a live source it keeps the time: a camera delivers fewer frames in the dark, some are dropped, and one a tick of
/// the clip would play them too fast. It repeats the one before only as often as the time of one frame allows: a coder
/// that falls behind would lose ever more frames to the repeated ones.
class VideoFile final : public Sink {
   public:
    VideoFile(const std::string& location, const FrameSpec& spec, std::optional<double> fps, bool live)
        : Sink(location, spec),
          path_(behind_links(location)),
          temporary_(temporary_beside(path_)),
          fps_(fps.value_or(default_fps)),
          live_(live) {
        if (is_node(location)) {
            throw Error(location +
                        ": is a device or a pipe, expected a file: give another, or --sink null:// for none");
        }
        if (!codec_of(path_)) {
            throw Error(path_.string() + ": suffix '" + path_.extension().string() +
                        "' is unknown, known are: .avi, .mkv, .mp4");
        }
        if (std::filesystem::is_directory(path_)) {
            throw Error(location + ": is a folder, expected a file: give --sink frames://" + location);
        }
        check_place(path_);
        if (spec.width % 2 != 0 || spec.height % 2 != 0) {  // OpenCV would drop the last column or row without a word
            throw Error(location + ": videos need an even size, frames are " + std::to_string(spec.width) + "x" +
                        std::to_string(spec.height) + ": use frames://");
        }
    }

    VideoFile(const VideoFile&) = delete;
    VideoFile& operator=(const VideoFile&) = delete;
    ~VideoFile() override {
        try {
            VideoFile::close();
        } catch (const std::exception&) {  // whoever wants to know closes it himself
        }
    }

    void close() override {
        if (!writer_.isOpened()) {
            return;
        }
        writer_.release();
        std::error_code error;
        if (written() == 0) {
            std::filesystem::remove(temporary_, error);
            return;
        }
        std::filesystem::rename(temporary_, path_, error);
        if (error) {
            throw Error(location() + ": cannot be given its name (" + error.message() + "): the clip is " +
                        temporary_.string());
        }
    }

   private:
    void put(std::span<const std::byte> image, std::int64_t captured_ns, bool) override {
        if (!writer_.isOpened()) {
            std::error_code error;
            std::filesystem::create_directories(folder(), error);
            const cv::Size size(spec().width, spec().height);
            // Absolute, or FFmpeg takes what stands before a colon for a protocol.
            const auto name = std::filesystem::absolute(temporary_).string();
            if (!writer_.open(name, cv::CAP_FFMPEG, *codec_of(path_), coded(fps_), size)) {
                throw WriteError(location() + ": cannot be written in " + folder().string() +
                                 ": check its space and rights");
            }
        }
        const cv::Mat bgr = to_bgr(image, spec());
        if (!live_) {
            encode(bgr);
            return;
        }
        for (auto left = repeats_before(captured_ns); left > 0; --left) {
            encode(last_);
        }
        encode(bgr);
        bgr.copyTo(last_);
    }

    /// How many frames are to be repeated before the one captured then: of a long gap a second's.
    std::int64_t repeats_before(std::int64_t captured_ns) {
        const auto at_ns = static_cast<double>(captured_ns);
        due_ns_ = std::max(last_.empty() ? at_ns : due_ns_, at_ns - second_ns);
        const double most = std::floor(period_ns() / takes_ns_);  // before the first was coded it is infinite
        const double missing = std::round((at_ns - due_ns_) / period_ns());
        if (missing > 0 && most < 1 && !told_) {
            told_ = true;
            warn(location() + ": coding a frame takes " + milliseconds(takes_ns_) + ", one is due every " +
                 milliseconds(period_ns()) +
                 ": frames are lost, and the clip plays faster than the camera saw: .avi and .mp4 take less than "
                 ".mkv, and a smaller frame less than a larger");
        }
        return std::llrint(std::min(missing, most));
    }

    void encode(const cv::Mat& bgr) {
        // OpenCV loses frames without a word on a full disk; a coded frame is hardly ever larger than the raw one.
        std::error_code error;
        const auto kept = margin * spec().bytes() + buffered + index_entry * encoded_;
        if (std::filesystem::space(folder(), error).available < kept) {
            throw WriteError(location() + ": No space left on device");
        }
        const auto start_ns = monotonic_ns();
        writer_.write(bgr);
        takes_ns_ += (static_cast<double>(monotonic_ns() - start_ns) - takes_ns_) / 8;
        ++encoded_;
        due_ns_ += period_ns();
    }

    [[nodiscard]] double period_ns() const { return second_ns / fps_; }

    [[nodiscard]] std::filesystem::path folder() const {
        return path_.has_parent_path() ? path_.parent_path() : std::filesystem::path(".");
    }

    std::filesystem::path path_;
    std::filesystem::path temporary_;
    double fps_;
    bool live_;
    cv::VideoWriter writer_;
    std::uintmax_t encoded_ = 0;
    double due_ns_ = 0;    // the clip's next frame
    double takes_ns_ = 0;  // to code a frame, of late
    bool told_ = false;
    cv::Mat last_;
};

}  // namespace

std::unique_ptr<Sink> video_file_sink(const std::string& location, const FrameSpec& spec, std::optional<double> fps,
                                      bool live) {
    return std::make_unique<VideoFile>(location, spec, fps, live);
}

}  // namespace derain
