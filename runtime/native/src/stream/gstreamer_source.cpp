#include "gstreamer_source.hpp"

#include <gst/app/gstappsink.h>
#include <gst/gst.h>
#include <gst/video/video.h>

#include <algorithm>
#include <chrono>
#include <future>
#include <optional>
#include <utility>

#include "decoded.hpp"
#include "derain/error.hpp"
#include "derain/stream/clock.hpp"
#include "derain/stream/redact.hpp"
#include "finally.hpp"
#include "kinds.hpp"

namespace derain {

namespace {

constexpr const char* caps_text = "video/x-raw, format = (string) BGR";
constexpr const char* appsink = " ! videoconvert ! appsink drop=true max-buffers=1 sync=false";
constexpr const char* mend = ": try it with `gst-launch-1.0`";
constexpr std::int64_t ms_ns = 1'000'000;
constexpr std::int64_t look_ns = 100 * ms_ns;  // how long one wait lasts before the source looks whether it was closed
constexpr std::int64_t start_look_ns = 20 * ms_ns;
// For a camera to be free before it is opened again. A pipeline that takes longer is stopped and freed all the same.
constexpr std::chrono::seconds stop_patience(1);

struct Release {
    void operator()(GstBus* bus) const { gst_object_unref(bus); }
    void operator()(GstCaps* caps) const { gst_caps_unref(caps); }
    void operator()(GstElement* element) const { gst_object_unref(element); }
    void operator()(GstIterator* iterator) const { gst_iterator_free(iterator); }
    void operator()(GstMessage* message) const { gst_message_unref(message); }
    void operator()(GstSample* sample) const { gst_sample_unref(sample); }
    void operator()(GError* error) const { g_error_free(error); }
    void operator()(gchar* text) const { g_free(text); }
};

template <typename T>
using Owned = std::unique_ptr<T, Release>;

using StateChange = std::shared_future<GstStateChangeReturn>;

/// Changes a state on a thread of GStreamer's, after the change `before`: an element that connects may take minutes.
StateChange set_state(GstElement& element, GstState state, StateChange before = {}) {
    using Task = std::packaged_task<GstStateChangeReturn(GstElement*)>;
    auto task = std::make_unique<Task>([state, before = std::move(before)](GstElement* changing) {
        if (before.valid()) {
            before.wait();
        }
        return gst_element_set_state(changing, state);
    });
    StateChange change = task->get_future();
    gst_element_call_async(
        &element, [](GstElement* changing, gpointer work) { (*static_cast<Task*>(work))(changing); }, task.release(),
        [](gpointer work) { std::unique_ptr<Task>(static_cast<Task*>(work)).reset(); });
    return change;
}

Owned<GstElement> parse(const std::string& description) {
    GError* error = nullptr;
    if (gst_init_check(nullptr, nullptr, &error) == FALSE) {
        throw Error(Owned<GError>(error)->message);
    }
    GstElement* parsed = gst_parse_launch_full(description.c_str(), nullptr, GST_PARSE_FLAG_FATAL_ERRORS, &error);
    const Owned<GError> fault(error);
    if (parsed == nullptr) {
        throw Error(fault->message);
    }
    Owned<GstElement> element(GST_ELEMENT(gst_object_ref_sink(parsed)));
    if (!GST_IS_PIPELINE(parsed)) {
        throw Error("it is one element, expected several joined by `!`");
    }
    return element;
}

Owned<GstElement> appsink_of(GstElement& pipeline) {
    const Owned<GstIterator> appsinks(gst_bin_iterate_all_by_element_factory_name(GST_BIN(&pipeline), "appsink"));
    GValue found = G_VALUE_INIT;
    if (gst_iterator_next(appsinks.get(), &found) != GST_ITERATOR_OK) {
        throw Error("it names an appsink, but has none");
    }
    Owned<GstElement> sink(GST_ELEMENT(g_value_dup_object(&found)));
    g_value_unset(&found);
    return sink;
}

/// A pipeline at work, from its construction on.
class Pipeline {
   public:
    explicit Pipeline(const std::string& description)
        : pipeline_(parse(description)),
          sink_(appsink_of(*pipeline_)),
          bus_(gst_element_get_bus(pipeline_.get())),
          drops_(gst_app_sink_get_drop(GST_APP_SINK(sink_.get())) == TRUE) {
        const Owned<GstCaps> caps(gst_caps_from_string(caps_text));
        gst_app_sink_set_caps(GST_APP_SINK(sink_.get()), caps.get());
        gst_base_sink_set_last_sample_enabled(GST_BASE_SINK(sink_.get()), TRUE);
        keep_every();  // until it is known what is wanted
        gst_bus_set_sync_handler(bus_.get(), keep_errors, nullptr, nullptr);
        started_ = set_state(*pipeline_, GST_STATE_PLAYING);
    }
    Pipeline(const Pipeline&) = delete;
    Pipeline& operator=(const Pipeline&) = delete;
    ~Pipeline() { set_state(*pipeline_, GST_STATE_NULL, started_).wait_for(stop_patience); }

    /// The first frame, once; it can still be pulled.
    Owned<GstSample> first() {
        Owned<GstSample> sample(gst_base_sink_get_last_sample(GST_BASE_SINK(sink_.get())));
        if (sample) {
            look_whether_live();
            gst_base_sink_set_last_sample_enabled(GST_BASE_SINK(sink_.get()), FALSE);
        }
        return sample;
    }

    /// Lets the frames wait for their reader, however many the description would drop.
    void keep_every() { gst_app_sink_set_drop(GST_APP_SINK(sink_.get()), FALSE); }
    /// Drops as the description says.
    void keep_newest() { gst_app_sink_set_drop(GST_APP_SINK(sink_.get()), drops_ ? TRUE : FALSE); }

    /// The next frame; nothing where none came in time.
    Owned<GstSample> pull(std::int64_t wait_ns) {
        return Owned<GstSample>(
            gst_app_sink_try_pull_sample(GST_APP_SINK(sink_.get()), static_cast<GstClockTime>(wait_ns)));
    }

    /// When a frame was captured: a live source stamps it with that time by the pipeline's clock, and it may have been
    /// decoded and have waited since. Nothing where the source is not live or the frame has no such stamp.
    std::optional<std::int64_t> captured_ns(GstSample& sample) {
        if (!std::exchange(pulled_, true)) {
            look_whether_live();  // behind the first frame: while that was on its way, the sink may not have known
        }
        const GstSegment* segment = gst_sample_get_segment(&sample);
        if (!live_ || segment->format != GST_FORMAT_TIME) {
            return std::nullopt;
        }
        const auto stamp =
            gst_segment_to_running_time(segment, GST_FORMAT_TIME, GST_BUFFER_PTS(gst_sample_get_buffer(&sample)));
        const auto running = gst_element_get_current_running_time(pipeline_.get());
        if (!GST_CLOCK_TIME_IS_VALID(stamp) || !GST_CLOCK_TIME_IS_VALID(running)) {
            return std::nullopt;
        }
        const auto now_ns = monotonic_ns();
        const auto age_ns = static_cast<std::int64_t>(running) - static_cast<std::int64_t>(stamp);
        const auto told_ns = now_ns - std::max<std::int64_t>(age_ns, 0);
        ours_ = ours_ || of_our_clock(told_ns, now_ns) == told_ns;  // from then on a frame may be of any age
        return ours_ ? told_ns : now_ns;
    }

    /// GStreamer's reason, where the pipeline failed or does so in that time.
    std::optional<std::string> fault(std::int64_t wait_ns) {
        const Owned<GstMessage> message(
            gst_bus_timed_pop_filtered(bus_.get(), static_cast<GstClockTime>(wait_ns), GST_MESSAGE_ERROR));
        if (!message) {
            return started() && started_.get() == GST_STATE_CHANGE_FAILURE ? std::optional("it gives no reason")
                                                                           : std::nullopt;
        }
        GError* error = nullptr;
        gchar* debug = nullptr;
        gst_message_parse_error(message.get(), &error, &debug);
        const Owned<GError> what(error);
        const Owned<gchar> where(debug);
        std::string reason = what->message;
        const std::string details = where ? where.get() : "";  // a place in GStreamer's code, then a line for its user
        if (const auto line = details.find('\n'); line != std::string::npos) {
            reason.append(" ").append(details, line + 1);
        }
        return reason;
    }

    /// Whether all frames have been pulled, and there will be no other.
    [[nodiscard]] bool ended() const {
        return started() && gst_app_sink_is_eos(GST_APP_SINK(sink_.get())) == TRUE;  // true before the start, too
    }

   private:
    /// A live pipeline's frames have an age, and wait for no clock: a sink that is given holds each for the pipeline's
    /// latency, by default, which is two seconds where there is a jitter buffer.
    void look_whether_live() {
        gboolean live = FALSE;
        gst_base_sink_query_latency(GST_BASE_SINK(sink_.get()), nullptr, &live, nullptr, nullptr);
        if (live == TRUE) {
            live_ = true;
            gst_base_sink_set_sync(GST_BASE_SINK(sink_.get()), FALSE);
        }
    }

    /// Nobody reads the other messages, and they would pile up.
    static GstBusSyncReply keep_errors(GstBus*, GstMessage* message, gpointer) {
        if (message->type == GST_MESSAGE_ERROR) {
            return GST_BUS_PASS;
        }
        gst_message_unref(message);
        return GST_BUS_DROP;
    }

    [[nodiscard]] bool started() const {
        return started_.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
    }

    Owned<GstElement> pipeline_;
    Owned<GstElement> sink_;
    Owned<GstBus> bus_;
    bool drops_;
    bool live_ = false;
    bool pulled_ = false;
    bool ours_ = false;
    StateChange started_;
};

class GstreamerSource final : public DecodedSource {
   public:
    GstreamerSource(const std::string& pipeline, const FrameSpec& spec, const GstreamerPatience& patience)
        : DecodedSource(redact("gst:" + pipeline), spec), description_(pipeline), patience_(patience) {
        set_live(true);
        const bool has_sink = pipeline.find("appsink") != std::string::npos;
        try {
            pipeline_ = std::make_unique<Pipeline>(has_sink ? pipeline : pipeline + appsink);
        } catch (const Error& error) {
            throw fault("does not start", error.what());
        }
        wait_for_first();
    }

    [[nodiscard]] std::unique_ptr<Source> reopened() const override {
        auto source = std::make_unique<GstreamerSource>(description_, spec(), patience_);
        source->set_fitted(fitted());
        return source;
    }

   private:
    [[nodiscard]] Error fault(const std::string& what, const std::string& reason = "") const {
        std::string line = redact(reason);
        std::ranges::replace(line, '\n', ' ');
        return Error(location() + ": " + what + (line.empty() ? "" : " (" + line + ")") + mend);
    }

    void wait_for_first() {
        const auto until_ns = monotonic_ns() + patience_.first_ms * ms_ns;
        while (true) {
            if (const auto sample = pipeline_->first()) {
                look_at(*gst_sample_get_caps(sample.get()));
                if (info_.fps_n > 0) {
                    set_fps(believed(static_cast<double>(info_.fps_n) / info_.fps_d));
                }
                return;
            }
            if (const auto reason = pipeline_->fault(start_look_ns)) {
                throw fault("does not start", *reason);
            }
            if (pipeline_->ended()) {
                throw fault("ended without a frame");
            }
            if (monotonic_ns() >= until_ns) {
                throw fault("no frame within " + std::to_string(patience_.first_ms) + " ms");
            }
        }
    }

    Read read() override {
        if (policy() == Policy::latest) {
            pipeline_->keep_newest();
        }
        const auto until_ns = monotonic_ns() + patience_.next_ms * ms_ns;
        while (!closed()) {
            if (const auto sample = pipeline_->pull(look_ns)) {
                return picture_of(*sample);
            }
            if (const auto reason = pipeline_->fault(0)) {
                throw fault("the pipeline failed", *reason);
            }
            if (pipeline_->ended()) {
                throw fault("the pipeline ended");
            }
            if (monotonic_ns() >= until_ns) {
                throw fault("no frame within " + std::to_string(patience_.next_ms) + " ms");
            }
        }
        return {};
    }

    Read picture_of(GstSample& sample) {
        const auto captured_ns = pipeline_->captured_ns(sample);
        look_at(*gst_sample_get_caps(&sample));
        GstVideoFrame frame{};
        if (gst_video_frame_map(&frame, &info_, gst_sample_get_buffer(&sample), GST_MAP_READ) == FALSE) {
            throw fault("a frame cannot be read");
        }
        const Finally read([&frame] { gst_video_frame_unmap(&frame); });
        const cv::Mat bgr(frame.info.height, frame.info.width, CV_8UC3, frame.data[0],
                          static_cast<std::size_t>(frame.info.stride[0]));
        Read got = from(bgr, location());
        got.captured_ns = captured_ns;
        return got;
    }

    /// Takes over what the frames are from now on, where that is new.
    void look_at(GstCaps& caps) {
        if (&caps != caps_.get()) {
            gst_video_info_from_caps(&info_, &caps);
            caps_.reset(gst_caps_ref(&caps));
        }
    }

    void release() override { pipeline_.reset(); }

    std::string description_;
    GstreamerPatience patience_;
    std::unique_ptr<Pipeline> pipeline_;
    Owned<GstCaps> caps_;
    GstVideoInfo info_{};
};

}  // namespace

std::unique_ptr<Source> make_gstreamer_source(const std::string& pipeline, const FrameSpec& spec,
                                              const GstreamerPatience& patience) {
    return std::make_unique<GstreamerSource>(pipeline, spec, patience);
}

std::unique_ptr<Source> gst_source(const std::string& location, const FrameSpec& spec) {
    return make_gstreamer_source(location, spec);
}

}  // namespace derain
