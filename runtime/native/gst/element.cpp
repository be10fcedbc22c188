/// `… ! derain bundle=DIR ! …`: a bundle on a GStreamer pipeline.
///
/// The caps on both sides are those of the bundle. A frame that the engine fails on, or has not done by the deadline,
/// goes on as it came; the engine is reopened behind the stream's back. Frames that QoS events call too late already
/// are not begun.
///
/// Each buffer that leaves it has a custom meta "DerainMeta" (GStreamer 1.20 or newer), which elements downstream copy:
/// `derained` (boolean) and, where it is false, `why` (string), in the words of the report.
#include <gst/gst.h>
#include <gst/video/gstvideofilter.h>
#include <gst/video/video.h>

#include <algorithm>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <tuple>

#include "caps.hpp"
#include "derain/error.hpp"
#include "derain/stream/filter.hpp"
#include "images.hpp"
#include "meta.hpp"
#include "stats.hpp"

GST_DEBUG_CATEGORY_STATIC(derain_debug);
#define GST_CAT_DEFAULT derain_debug

namespace {

using derain::FrameSpec;

constexpr const char* caps_text =
    "video/x-raw, format = (string) { BGR, RGB, NV12, UYVY }, width = (int) [ 1, max ], "
    "height = (int) [ 1, max ], framerate = (fraction) [ 0, max ]";
constexpr std::size_t pictures_in_advance = 3;

enum Property { property_bundle = 1, property_engine, property_precision, property_deadline, property_stats };

/// What the properties say.
struct Settings {
    std::string bundle, engine = derain::default_engine(), precision = "fp32";
    double deadline_ms = 0;

    /// From a frame's arrival until it goes on, at the latest; nothing: there is none.
    [[nodiscard]] std::optional<double> deadline() const {
        return deadline_ms > 0 ? std::optional(deadline_ms) : std::nullopt;
    }
};

/// What the element holds between frames. Caps, queries and events may be on any thread.
class Inside {
   public:
    [[nodiscard]] Settings settings() const {
        const std::scoped_lock lock(mutex_);
        return settings_;
    }

    /// Calls `change` with the settings; another bundle is read when it is asked for.
    template <typename Change>
    void set(Change change) {
        const std::scoped_lock lock(mutex_);
        const std::string before = settings_.bundle;
        change(settings_);
        if (settings_.bundle != before) {
            loaded_.reset();
        }
    }

    /// Reads the bundle anew when it is next asked for: it may have been calibrated or built since.
    void forget_bundle() {
        const std::scoped_lock lock(mutex_);
        loaded_.reset();
    }

    /// The bundle, read once; Error where it cannot be.
    derain::Bundle bundle() {
        const std::scoped_lock lock(mutex_);
        if (settings_.bundle.empty()) {
            throw derain::Error("no bundle, expected a folder made by `derain export`: set the property bundle");
        }
        if (!loaded_) {
            loaded_.emplace(derain::Bundle::load(settings_.bundle));
        }
        return *loaded_;
    }

    [[nodiscard]] std::shared_ptr<derain::Filter> current() const {
        const std::scoped_lock lock(mutex_);
        return filter_;
    }

    void become(std::shared_ptr<derain::Filter> other) {
        {
            const std::scoped_lock lock(mutex_);
            filter_.swap(other);
        }
        other.reset();  // without the lock: it may wait for the engine
    }

    std::shared_ptr<derain::Pool> pictures;  // of the streaming thread

   private:
    mutable std::mutex mutex_;
    Settings settings_;
    std::optional<derain::Bundle> loaded_;
    std::shared_ptr<derain::Filter> filter_;
};

}  // namespace

struct DerainElement {
    GstVideoFilter parent;
    std::unique_ptr<Inside> inside;
};

struct DerainElementClass {
    GstVideoFilterClass parent;
};

G_DEFINE_TYPE(DerainElement, derain_element, GST_TYPE_VIDEO_FILTER)

namespace {

Inside& inside_of(gpointer object) { return *static_cast<DerainElement*>(object)->inside; }

/// Whether frames run or are about to: what they rest on must not change then.
bool runs(GObject* object) {
    auto* element = GST_ELEMENT(object);
    GST_OBJECT_LOCK(element);
    const auto state = std::max(GST_STATE(element), GST_STATE_NEXT(element));
    GST_OBJECT_UNLOCK(element);
    return state > GST_STATE_READY;
}

void set_property(GObject* object, guint id, const GValue* value, GParamSpec* spec) {
    Inside& inside = inside_of(object);
    if (runs(object)) {
        g_warning("%s: '%s' set while the pipeline runs, expected in NULL or READY: stop it first; the old value stays",
                  GST_OBJECT_NAME(object), spec->name);
        return;
    }
    const auto text = [value] {
        const char* given = g_value_get_string(value);
        return std::string(given == nullptr ? "" : given);
    };
    switch (id) {
        case property_bundle:
            inside.set([&](Settings& settings) { settings.bundle = text(); });
            break;
        case property_engine:
            inside.set([&](Settings& settings) { settings.engine = text(); });
            break;
        case property_precision:
            inside.set([&](Settings& settings) { settings.precision = text(); });
            break;
        case property_deadline:
            inside.set([&](Settings& settings) { settings.deadline_ms = g_value_get_double(value); });
            break;
        default:
            G_OBJECT_WARN_INVALID_PROPERTY_ID(object, id, spec);
    }
}

void get_property(GObject* object, guint id, GValue* value, GParamSpec* spec) {
    const Settings settings = inside_of(object).settings();
    switch (id) {
        case property_bundle:
            g_value_set_string(value, settings.bundle.c_str());
            break;
        case property_engine:
            g_value_set_string(value, settings.engine.c_str());
            break;
        case property_precision:
            g_value_set_string(value, settings.precision.c_str());
            break;
        case property_deadline:
            g_value_set_double(value, settings.deadline_ms);
            break;
        case property_stats: {
            const auto filter = inside_of(object).current();
            g_value_take_boxed(
                value, filter ? filter->statistics(derain::gst::stats_of) : derain::gst::stats_of(derain::Tally()));
            break;
        }
        default:
            G_OBJECT_WARN_INVALID_PROPERTY_ID(object, id, spec);
    }
}

/// The caps of the other side: its size, pixels and colorimetry from the bundle, its rate as on this side.
GstCaps* transform_caps(GstBaseTransform* transform, GstPadDirection direction, GstCaps* caps, GstCaps* filter) {
    GstCaps* other = gst_caps_copy(caps);
    try {
        const derain::Bundle bundle = inside_of(transform).bundle();
        const FrameSpec& spec = direction == GST_PAD_SINK ? bundle.manifest().output : bundle.manifest().input;
        derain::gst::describe(*other, spec);
    } catch (...) {
        GST_WARNING_OBJECT(transform, "%s", derain::what_was_caught());  // `start` tells it to the user
    }
    if (filter != nullptr) {
        GstCaps* both = gst_caps_intersect_full(filter, other, GST_CAPS_INTERSECT_FIRST);
        gst_caps_unref(other);
        other = both;
    }
    return other;
}

/// Refuses frames that are not the bundle's, which nobody downstream may have asked about.
gboolean set_info(GstVideoFilter* filter, GstCaps* in_caps, GstVideoInfo* in, GstCaps* out_caps, GstVideoInfo* out) {
    std::optional<derain::Bundle> bundle;
    try {
        bundle = inside_of(filter).bundle();
    } catch (...) {
        GST_ELEMENT_ERROR(filter, LIBRARY, SETTINGS, ("%s", derain::what_was_caught()), (nullptr));
        return FALSE;
    }
    for (const auto& [info, caps, spec] :
         {std::tuple(in, in_caps, &bundle->manifest().input), std::tuple(out, out_caps, &bundle->manifest().output)}) {
        if (!derain::gst::fits(*info, *caps, *spec)) {
            GST_ELEMENT_ERROR(filter, STREAM, FORMAT,
                              ("frames are %s, the bundle expects %s: put videoconvert and videoscale before",
                               derain::gst::to_string(*info).c_str(), derain::gst::to_string(*spec).c_str()),
                              (nullptr));
            return FALSE;
        }
    }
    return TRUE;
}

gboolean start(GstBaseTransform* transform) {
    Inside& inside = inside_of(transform);
    try {
        const Settings settings = inside.settings();
        const derain::Bundle bundle = inside.bundle();
        const auto& manifest = bundle.manifest();
        if (!manifest.input.same_format(manifest.output)) {
            throw derain::Error(settings.bundle +
                                ": input and output differ, and a raw frame could not go on as it came: "
                                "export a bundle with one format");
        }
        const std::shared_ptr<derain::Engine> engine =
            derain::make_engine(settings.engine, bundle, derain::parse_precision(settings.precision));
        engine->open();
        engine->warm_up();
        inside.pictures = derain::Pool::make(manifest.input.bytes(), pictures_in_advance);
        inside.become(std::make_shared<derain::Filter>(
            engine, settings.deadline(), [](const derain::Picture& raw) { return raw; },
            [transform](std::string_view line) {
                GST_ELEMENT_WARNING(transform, LIBRARY, FAILED, ("%s", std::string(line).c_str()), (nullptr));
            }));
    } catch (...) {
        GST_ELEMENT_ERROR(transform, LIBRARY, INIT, ("%s", derain::what_was_caught()), (nullptr));
        return FALSE;
    }
    return TRUE;
}

gboolean stop(GstBaseTransform* transform) {
    inside_of(transform).become(nullptr);
    return TRUE;
}

/// Adds to a live pipeline's latency: with a deadline, a frame may be held here that long.
///
/// A deadline is only set in NULL and READY, and a pipeline asks after that.
gboolean answer(GstBaseTransform* transform, GstPadDirection direction, GstQuery* query) {
    if (GST_BASE_TRANSFORM_CLASS(derain_element_parent_class)->query(transform, direction, query) == FALSE) {
        return FALSE;
    }
    if (GST_QUERY_TYPE(query) != GST_QUERY_LATENCY || direction != GST_PAD_SRC) {
        return TRUE;
    }
    gboolean live = FALSE;
    GstClockTime least = 0;
    GstClockTime most = 0;
    gst_query_parse_latency(query, &live, &least, &most);
    const auto held_ns = derain::deadline_in_ns(inside_of(transform).settings().deadline());
    if (live != FALSE && held_ns) {
        const auto held = static_cast<GstClockTime>(*held_ns);
        gst_query_set_latency(query, live, least + held, GST_CLOCK_TIME_IS_VALID(most) ? most + held : most);
    }
    return TRUE;
}

/// A start reads the bundle anew; a stop lets the streaming thread go, which the parent class waits for, from an engine
/// that hangs.
GstStateChangeReturn change_state(GstElement* element, GstStateChange transition) {
    if (transition == GST_STATE_CHANGE_NULL_TO_READY) {
        inside_of(element).forget_bundle();
    }
    if (transition == GST_STATE_CHANGE_PAUSED_TO_READY) {
        if (const auto filter = inside_of(element).current()) {
            filter->stop();
        }
    }
    return GST_ELEMENT_CLASS(derain_element_parent_class)->change_state(element, transition);
}

/// A flush waits for the streaming thread, too.
gboolean sink_event(GstBaseTransform* transform, GstEvent* event) {
    if (const auto filter = inside_of(transform).current()) {
        if (GST_EVENT_TYPE(event) == GST_EVENT_FLUSH_START) {
            filter->stop();
        } else if (GST_EVENT_TYPE(event) == GST_EVENT_FLUSH_STOP) {
            filter->go_on();
        }
    }
    return GST_BASE_TRANSFORM_CLASS(derain_element_parent_class)->sink_event(transform, event);
}

GstFlowReturn transform_frame(GstVideoFilter* filter, GstVideoFrame* in, GstVideoFrame* out) {
    Inside& inside = inside_of(filter);
    const auto captured_ns = derain::monotonic_ns();
    try {
        derain::Picture raw = inside.pictures->take();
        derain::gst::read(*in, raw.writable());
        const auto shown = inside.current()->process(std::move(raw), captured_ns);
        derain::gst::write(shown.picture.bytes(), *out);
        derain::gst::mark(*out->buffer, shown.why);
        if (shown.why) {
            GST_LOG_OBJECT(filter, "raw frame: %s", std::string(to_string(*shown.why)).c_str());
        }
    } catch (...) {
        GST_WARNING_OBJECT(filter, "%s: the frame goes on as it came", derain::what_was_caught());
        if (gst_video_frame_copy(out, in) == FALSE) {
            return GST_FLOW_ERROR;
        }
        derain::gst::mark(*out->buffer, derain::Why::fault);
    }
    return GST_FLOW_OK;
}

/// Drops a frame that came cut short: the parent class would let a buffer go on that nobody has written into.
GstFlowReturn transform_whole(GstBaseTransform* transform, GstBuffer* in, GstBuffer* out) {
    GstVideoInfo& info = GST_VIDEO_FILTER(transform)->in_info;
    GstVideoFrame frame{};
    if (gst_video_frame_map(&frame, &info, in, GST_MAP_READ) == FALSE) {
        GST_ELEMENT_WARNING(transform, STREAM, FORMAT,
                            ("a frame of %zu bytes, expected %zu (%s): it is dropped: see what delivers it",
                             gst_buffer_get_size(in), info.size, derain::gst::to_string(info).c_str()),
                            (nullptr));
        return GST_BASE_TRANSFORM_FLOW_DROPPED;
    }
    gst_video_frame_unmap(&frame);
    return GST_BASE_TRANSFORM_CLASS(derain_element_parent_class)->transform(transform, in, out);
}

void finalize(GObject* object) {
    std::destroy_at(&static_cast<DerainElement*>(static_cast<gpointer>(object))->inside);
    G_OBJECT_CLASS(derain_element_parent_class)->finalize(object);
}

void add_properties(GObjectClass& object) {
    constexpr auto flags =
        static_cast<GParamFlags>(G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS | GST_PARAM_MUTABLE_READY);
    const auto add_text = [&object](guint id, const char* name, const char* what, const char* normally) {
        g_object_class_install_property(&object, id, g_param_spec_string(name, name, what, normally, flags));
    };
    add_text(property_bundle, "bundle", "The bundle's folder, made by `derain export`", "");
    add_text(property_engine, "engine", "The engine by name", derain::default_engine().c_str());
    add_text(property_precision, "precision", "fp32, fp16, int8 or fp8: one the bundle has", "fp32");
    g_object_class_install_property(
        &object, property_deadline,
        g_param_spec_double(
            "deadline", "deadline",
            "Milliseconds after which the raw frame goes on where the derained one is not there; 0: none", 0,
            G_MAXDOUBLE, 0, flags));
    constexpr auto readable = static_cast<GParamFlags>(G_PARAM_READABLE | G_PARAM_STATIC_STRINGS);
    g_object_class_install_property(
        &object, property_stats,
        g_param_spec_boxed("stats", "stats", "What became of the frames since the start, and how long they took",
                           GST_TYPE_STRUCTURE, readable));
}

gboolean init_plugin(GstPlugin* plugin) {
    GST_DEBUG_CATEGORY_INIT(derain_debug, "derain", 0, "rain removal");
    derain::gst::register_meta();
    return gst_element_register(plugin, "derain", GST_RANK_NONE, derain_element_get_type());
}

}  // namespace

static void derain_element_class_init(DerainElementClass* klass) {
    auto& object = *G_OBJECT_CLASS(klass);
    object.set_property = set_property;
    object.get_property = get_property;
    object.finalize = finalize;
    add_properties(object);

    auto* element = GST_ELEMENT_CLASS(klass);
    element->change_state = change_state;
    gst_element_class_set_static_metadata(
        element, "Rain removal", "Filter/Effect/Video",
        "Takes rain streaks and raindrops off camera frames; each buffer's DerainMeta says "
        "whether it was derained or why not",
        "derain");
    GstCaps* caps = gst_caps_from_string(caps_text);
    gst_element_class_add_pad_template(element, gst_pad_template_new("sink", GST_PAD_SINK, GST_PAD_ALWAYS, caps));
    gst_element_class_add_pad_template(element, gst_pad_template_new("src", GST_PAD_SRC, GST_PAD_ALWAYS, caps));
    gst_caps_unref(caps);

    auto& transform = *GST_BASE_TRANSFORM_CLASS(klass);
    transform.transform_caps = transform_caps;
    transform.start = start;
    transform.stop = stop;
    transform.transform = transform_whole;
    transform.sink_event = sink_event;
    transform.query = answer;
    auto& filter = *GST_VIDEO_FILTER_CLASS(klass);
    filter.set_info = set_info;
    filter.transform_frame = transform_frame;
}

static void derain_element_init(DerainElement* self) {
    std::construct_at(&self->inside, std::make_unique<Inside>());
    gst_base_transform_set_qos_enabled(GST_BASE_TRANSFORM(self), TRUE);
}

GST_PLUGIN_DEFINE(GST_VERSION_MAJOR, GST_VERSION_MINOR, derain, "Rain removal for vehicle cameras", init_plugin,
                  DERAIN_VERSION, GST_LICENSE_UNKNOWN, "derain", "derain")
