/// `test://rain?width=640&height=360&frames=60&fps=30&seed=0`: a moving pattern under moving streaks, made here.
///
/// `test://clean?…` is the same pattern without the streaks. It tries a pipeline where there is no footage; how well a
/// network derains it says nothing about real rain, and Python's pattern has other streaks for the same seed.
///
/// With `live=1` it behaves as a camera does: frames come at `fps` whether they are wanted or not. And it can fail on
/// cue, once: `unplug=N` throws Error at frame N and for `outage` seconds after it, `stall=N` hangs that long at frame
/// N, and from frame N until `outage` seconds are over `resize=N` delivers frames of half the size, `truncate=N` JPEGs
/// cut short.
#include <algorithm>
#include <array>
#include <atomic>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>
#include <random>
#include <thread>
#include <vector>

#include "decoded.hpp"
#include "derain/error.hpp"
#include "derain/stream/clock.hpp"
#include "kinds.hpp"
#include "options.hpp"

namespace derain {

namespace {

constexpr int streaks = 60;
constexpr double streak_level = 110;

struct Settings {
    bool rain;
    int width, height;
    std::int64_t frames;
    double fps;
    unsigned seed;
    bool live;
    std::optional<std::int64_t> unplug, stall, resize, truncate;
    double outage_s;
};

Settings parse(const std::string& name, const std::string& location, const FrameSpec& spec) {
    const auto mark = std::min(location.find('?'), location.size());
    const std::string kind = location.substr(0, mark);
    if (kind != "rain" && kind != "clean") {
        throw Error(name + ": pattern '" + kind + "' is unknown, known are: clean, rain");
    }
    const Options options(
        name, std::string_view(location).substr(std::min(mark + 1, location.size())),
        {"width", "height", "frames", "fps", "seed", "live", "unplug", "stall", "resize", "truncate", "outage"});
    Settings settings{.rain = kind == "rain",
                      .width = options.number<int>("width", 1).value_or(spec.width),
                      .height = options.number<int>("height", 1).value_or(spec.height),
                      .frames = options.number<std::int64_t>("frames", 1).value_or(60),
                      .fps = options.number<double>("fps", 1e-3).value_or(30),
                      .seed = options.number<unsigned>("seed", 0).value_or(0),
                      .live = options.number<int>("live", 0).value_or(0) != 0,
                      .unplug = options.number<std::int64_t>("unplug", 1),
                      .stall = options.number<std::int64_t>("stall", 1),
                      .resize = options.number<std::int64_t>("resize", 1),
                      .truncate = options.number<std::int64_t>("truncate", 1),
                      .outage_s = options.number<double>("outage", 1e-3).value_or(1)};
    if (!settings.live && (settings.unplug || settings.stall || settings.resize || settings.truncate)) {
        throw Error(name + ": unplug, stall, resize and truncate are faults of a camera: add live=1");
    }
    return settings;
}

/// The same frames for the same settings: a texture that scrolls, under streaks that fall.
class Pictures {
   public:
    explicit Pictures(const Settings& settings) : settings_(settings) {
        std::mt19937 random(settings.seed);
        cv::Mat coarse(6, 10, CV_8UC3);
        std::generate(coarse.begin<cv::Vec3b>(), coarse.end<cv::Vec3b>(), [&random] {
            const auto level = [&random] { return static_cast<uchar>(20 + random() % 180); };
            const auto blue = level();
            const auto green = level();
            return cv::Vec3b(blue, green, level());
        });
        cv::resize(coarse, scene_, {settings.width, settings.height}, 0, 0, cv::INTER_CUBIC);
        for (int row = 0; row < settings.height; ++row) {  // edges to keep, in pairs of rows, which share their chroma
            if (row / 2 % 12 == 0) {
                scene_.row(row).setTo(cv::Scalar::all(40));
            }
        }
        for (auto& start : starts_) {
            start.x = static_cast<int>(random() % static_cast<unsigned>(settings.width));
            start.y = static_cast<int>(random() % static_cast<unsigned>(settings.height));
        }
    }

    /// BGR [H, W, 3], into `image`.
    void draw(std::int64_t index, cv::Mat& image) {
        image.create(scene_.size(), CV_8UC3);
        const int shift = static_cast<int>(2 * index % settings_.width);
        const int rest = settings_.width - shift;
        scene_.colRange(0, rest).copyTo(image.colRange(shift, settings_.width));
        if (shift > 0) {
            scene_.colRange(rest, settings_.width).copyTo(image.colRange(0, shift));
        }
        if (!settings_.rain) {
            return;
        }
        const int length = std::max(settings_.height / 8, 2);
        const int step = std::max(settings_.height / 7, 1);
        mask_.create(scene_.size(), CV_8U);
        mask_.setTo(0);
        for (const auto& start : starts_) {
            const int top = static_cast<int>((start.y + index * step) % settings_.height);
            cv::line(mask_, {start.x, top}, {start.x - length / 5, top + length}, streak_level, 1, cv::LINE_AA);
        }
        cv::cvtColor(mask_, rain_, cv::COLOR_GRAY2BGR);
        cv::add(image, rain_, image);
    }

   private:
    Settings settings_;
    cv::Mat scene_, mask_, rain_;
    std::array<cv::Point, streaks> starts_;
};

class Pattern final : public DecodedSource {
   public:
    Pattern(const std::string& location, const FrameSpec& spec)
        : Pattern("test://" + location, spec, parse("test://" + location, location, spec)) {}

    Pattern(const std::string& name, const FrameSpec& spec, const Settings& settings)
        : DecodedSource(name, spec), settings_(settings), pictures_(settings) {
        set_fps(settings.fps);
        set_frames(settings.frames);
        set_live(settings.live);
    }

    /// The rest of the frames, with the fault behind it; Error while the outage lasts.
    [[nodiscard]] std::unique_ptr<Source> reopened() const override {
        if (monotonic_ns() < outage_over_ns_) {
            throw Error(location() + ": no such camera");
        }
        Settings settings = settings_;
        settings.unplug = settings.stall = std::nullopt;
        auto again = std::make_unique<Pattern>(location(), spec(), settings);
        again->start_ns_ = start_ns_;
        again->next_ = next_.load();
        again->outage_over_ns_ = outage_over_ns_.load();
        again->set_fitted(fitted());
        return again;
    }

   private:
    Read read() override {
        if (next_ == settings_.frames) {
            return {};
        }
        const bool fits = settings_.width == spec().width && settings_.height == spec().height;
        cv::Mat image = fits ? target() : cv::Mat();
        pictures_.draw(next_, image);
        if (settings_.live) {
            const auto due_ns = static_cast<std::int64_t>(static_cast<double>(next_) * 1e9 / settings_.fps);
            std::this_thread::sleep_for(std::chrono::nanoseconds(start_ns_ + due_ns - monotonic_ns()));
        }
        const cv::Mat delivered = with_faults(next_++, image);
        return delivered.empty() ? Read{.broken = true} : from(delivered, location());
    }

    /// What comes out of the camera; empty where nothing whole does.
    cv::Mat with_faults(std::int64_t index, const cv::Mat& image) {
        const auto is_now = [index](const std::optional<std::int64_t>& at) { return at == index; };
        const std::chrono::duration<double> outage(settings_.outage_s);
        if (is_now(settings_.unplug) || is_now(settings_.stall) || is_now(settings_.resize) ||
            is_now(settings_.truncate)) {
            outage_over_ns_ = monotonic_ns() + std::chrono::duration_cast<std::chrono::nanoseconds>(outage).count();
        }
        if (is_now(settings_.unplug)) {
            throw Error(location() + ": unplugged");
        }
        if (is_now(settings_.stall)) {
            std::this_thread::sleep_for(outage);
        }
        if (monotonic_ns() >= outage_over_ns_) {
            return image;
        }
        if (settings_.resize && index >= *settings_.resize) {
            cv::Mat half;
            cv::resize(image, half, {}, 0.5, 0.5, cv::INTER_NEAREST);
            return half;
        }
        if (settings_.truncate && index >= *settings_.truncate) {
            std::vector<uchar> jpeg;
            cv::imencode(".jpg", image, jpeg);
            return decoded({reinterpret_cast<const char*>(jpeg.data()), jpeg.size() * 2 / 3});
        }
        return image;
    }

    Settings settings_;
    Pictures pictures_;
    std::int64_t start_ns_ = monotonic_ns();
    // Read by `reopened` while a read hangs.
    std::atomic<std::int64_t> next_ = 0;
    std::atomic<std::int64_t> outage_over_ns_ = 0;
};

}  // namespace

std::unique_ptr<Source> pattern_source(const std::string& location, const FrameSpec& spec) {
    return std::make_unique<Pattern>(location, spec);
}

}  // namespace derain
