#include <gmock/gmock.h>
#include <gst/check/gstharness.h>
#include <gst/gst.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "bundle_files.hpp"
#include "images.hpp"

namespace derain::testing {
namespace {

using ::testing::HasSubstr;

std::string caps_of(int frame_width, int frame_height, const std::string& format = "BGR") {
    return "video/x-raw,framerate=30/1,width=" + std::to_string(frame_width) +
           ",height=" + std::to_string(frame_height) + ",format=" + format;
}

/// Of NV12 in a colorimetry, as GStreamer spells it.
std::string nv12_in(const std::string& colorimetry) {
    return caps_of(width, height, "NV12,colorimetry=" + colorimetry);
}

/// What an element posted of a kind; empty where it posted nothing.
std::string posted(GstBus* bus, GstMessageType type) {
    GstMessage* message = gst_bus_pop_filtered(bus, type);
    if (message == nullptr) {
        return {};
    }
    GError* what = nullptr;
    (type == GST_MESSAGE_ERROR ? gst_message_parse_error : gst_message_parse_warning)(message, &what, nullptr);
    std::string text = what->message;
    g_error_free(what);
    gst_message_unref(message);
    return text;
}

/// The element `derain`, playing frames of 32x16 on an engine that inverts, or does what the script says.
class Element : public ::testing::Test {
   protected:
    Element() {
        gst_init(nullptr, nullptr);
        GError* fault = nullptr;
        GstPlugin* plugin = gst_plugin_load_file(DERAIN_ELEMENT, &fault);
        EXPECT_NE(plugin, nullptr) << fault->message;
        gst_object_unref(plugin);
        register_engine("scripted", [this](const Bundle& bundle, Precision, const EngineOptions&) {
            return std::make_unique<ScriptedEngine>(script, slow_ms, 0, bundle);
        });
        static_cast<void>(files.load());
    }

    void TearDown() override {
        if (harness != nullptr) {
            gst_harness_teardown(harness);
        }
    }

    void play(const std::string& caps = caps_of(width, height)) {
        GstElement* made = gst_element_factory_make("derain", nullptr);
        g_object_set(made, "bundle", files.path().c_str(), "engine", "scripted", "deadline", deadline_ms, nullptr);
        harness = gst_harness_new_with_element(made, "sink", "src");
        element = harness->element;
        gst_object_unref(made);
        gst_harness_set_src_caps_str(harness, caps.c_str());
    }

    void expect(const std::string& pixels, const std::string& matrix, const std::string& range) {
        for (const char* side : {"input", "output"}) {
            files.manifest[side].update({{"pixels", pixels}, {"matrix", matrix}, {"range", range}});
        }
        static_cast<void>(files.load());
    }

    [[nodiscard]] GstElement* unlinked() const {
        GstElement* alone = gst_element_factory_make("derain", nullptr);
        g_object_set(alone, "bundle", files.path().c_str(), nullptr);
        return alone;
    }

    /// Whether a side that nothing is linked to takes such frames.
    [[nodiscard]] bool takes(const char* side, const std::string& caps) const {
        GstElement* alone = unlinked();
        const bool some = takes(alone, side, caps);
        gst_object_unref(alone);
        return some;
    }

    static bool takes(GstElement* alone, const char* side, const std::string& caps) {
        GstPad* pad = gst_element_get_static_pad(alone, side);
        GstCaps* given = gst_caps_from_string(caps.c_str());
        GstCaps* taken = gst_pad_query_caps(pad, given);
        const bool some = gst_caps_is_empty(taken) == FALSE;
        gst_caps_unref(taken);
        gst_caps_unref(given);
        gst_object_unref(pad);
        return some;
    }

    /// One grey frame in.
    GstFlowReturn push(int level, std::size_t bytes = make_spec().bytes()) {
        GstBuffer* buffer = gst_buffer_new_allocate(nullptr, bytes, nullptr);
        gst_buffer_memset(buffer, 0, static_cast<guint8>(level), bytes);
        return gst_harness_push(harness, buffer);
    }

    /// The first byte of the next frame out.
    int pulled() {
        GstBuffer* buffer = gst_harness_pull(harness);
        guint8 first = 0;
        EXPECT_EQ(gst_buffer_extract(buffer, 0, &first, 1), 1U);
        gst_buffer_unref(buffer);
        return first;
    }

    [[nodiscard]] std::string text(const char* property) const {
        gchar* given = nullptr;
        g_object_get(element, property, &given, nullptr);
        std::string copy = given;
        g_free(given);
        return copy;
    }

    /// A count of the property `stats`.
    [[nodiscard]] guint64 counted(const char* field) const {
        GstStructure* stats = nullptr;
        g_object_get(element, "stats", &stats, nullptr);
        guint64 value = 99;
        EXPECT_TRUE(gst_structure_get_uint64(stats, field, &value)) << field;
        gst_structure_free(stats);
        return value;
    }

    /// The most latency that downstream is told.
    [[nodiscard]] GstClockTime most_latency() const {
        GstQuery* query = gst_query_new_latency();
        EXPECT_TRUE(gst_pad_peer_query(harness->sinkpad, query));
        GstClockTime most = 0;
        gst_query_parse_latency(query, nullptr, nullptr, &most);
        gst_query_unref(query);
        return most;
    }

    BundleFiles files;
    std::map<int, Fault> script;
    int slow_ms = 200;
    double deadline_ms = 0;
    GstHarness* harness = nullptr;
    GstElement* element = nullptr;
};

TEST_F(Element, KeepsItsPropertiesWhileItRunsSoThatNoFrameOutgrowsItsMemory) {
    BundleFiles larger;
    for (const char* side : {"input", "output"}) {
        larger.manifest[side]["width"] = 640;
        larger.manifest[side]["height"] = 480;
    }
    static_cast<void>(larger.load());
    play();
    ASSERT_EQ(push(10), GST_FLOW_OK);
    EXPECT_EQ(pulled(), 245);
    g_test_expect_message(nullptr, G_LOG_LEVEL_WARNING, "*'bundle' set while the pipeline runs, expected in NULL*");
    g_object_set(element, "bundle", larger.path().c_str(), nullptr);
    g_test_assert_expected_messages();
    EXPECT_EQ(text("bundle"), files.path().string());
    gst_harness_set_src_caps_str(harness, caps_of(640, 480).c_str());
    EXPECT_EQ(push(10, std::size_t{640} * 480 * 3), GST_FLOW_NOT_NEGOTIATED);

    gst_element_set_state(element, GST_STATE_READY);
    g_object_set(element, "bundle", larger.path().c_str(), nullptr);
    EXPECT_EQ(text("bundle"), larger.path().string());
}

TEST_F(Element, ReadsItsBundleAnewWhenItIsStartedAnew) {
    GstElement* alone = unlinked();
    EXPECT_TRUE(takes(alone, "sink", caps_of(width, height)));
    for (const char* side : {"input", "output"}) {
        files.manifest[side]["width"] = 2 * width;
    }
    static_cast<void>(files.load());
    EXPECT_EQ(gst_element_set_state(alone, GST_STATE_READY), GST_STATE_CHANGE_SUCCESS);
    EXPECT_TRUE(takes(alone, "sink", caps_of(2 * width, height)));
    gst_element_set_state(alone, GST_STATE_NULL);
    gst_object_unref(alone);
}

TEST_F(Element, TakesTheColorimetriesOfItsBundlesMatrixAndRange) {
    for (const auto& [matrix, range, taken] :
         {std::tuple("bt601", "limited", std::vector{"bt601", "2:4:7:1", "2:4:5:4"}),
          std::tuple("bt601", "full", std::vector{"1:4:0:0", "1:4:7:1"}),
          std::tuple("bt709", "limited", std::vector{"bt709"}), std::tuple("bt709", "full", std::vector{"1:3:5:1"})}) {
        expect("nv12", matrix, range);
        for (const std::string colorimetry :
             {"bt601", "2:4:7:1", "2:4:5:4", "1:4:0:0", "1:4:7:1", "bt709", "1:3:5:1", "bt2020"}) {
            for (const char* side : {"sink", "src"}) {
                EXPECT_EQ(takes(side, nv12_in(colorimetry)), std::ranges::count(taken, colorimetry) == 1)
                    << matrix << " " << range << " " << colorimetry << " " << side;
            }
        }
    }
    expect("bgr8", "bt601", "limited");
    EXPECT_TRUE(takes("sink", caps_of(width, height, "BGR,colorimetry=sRGB")));
}

TEST_F(Element, TellsTheColorimetryOfWhatItGives) {
    const std::size_t bytes = make_spec("frame", Pixels::nv12).bytes();
    const std::string untold = caps_of(width, height, "NV12");  // GStreamer supposes bt601 of a size as small
    for (const auto& [matrix, caps, given] :
         {std::tuple("bt601", nv12_in("2:4:7:1"), "2:4:7:1"), std::tuple("bt601", untold, "bt601"),
          std::tuple("bt709", untold, "bt709")}) {
        expect("nv12", matrix, "limited");
        play(caps);
        ASSERT_EQ(push(10, bytes), GST_FLOW_OK);
        EXPECT_EQ(pulled(), 245);
        GstCaps* told = gst_pad_get_current_caps(harness->sinkpad);
        EXPECT_STREQ(gst_structure_get_string(gst_caps_get_structure(told, 0), "colorimetry"), given);
        gst_caps_unref(told);
        gst_harness_teardown(std::exchange(harness, nullptr));
    }
}

TEST_F(Element, RefusesFramesOfAnotherColorimetry) {
    expect("nv12", "bt601", "limited");
    play(nv12_in("bt601"));
    GstBus* bus = gst_bus_new();
    gst_element_set_bus(element, bus);
    gst_harness_set_src_caps_str(harness, nv12_in("bt709").c_str());
    EXPECT_EQ(push(10, make_spec("frame", Pixels::nv12).bytes()), GST_FLOW_NOT_NEGOTIATED);
    EXPECT_EQ(posted(bus, GST_MESSAGE_ERROR),
              "frames are 32x16 NV12 bt709, the bundle expects 32x16 NV12 bt601: "
              "put videoconvert and videoscale before");
    gst_element_set_bus(element, nullptr);
    gst_object_unref(bus);
}

TEST_F(Element, TellsTheApplicationOfFaultsAndCountsThem) {
    script = {{1, Fault::raise}};
    play();
    GstBus* bus = gst_bus_new();
    gst_element_set_bus(element, bus);
    for (const int level : {10, 20}) {
        ASSERT_EQ(push(level), GST_FLOW_OK);
        EXPECT_EQ(pulled(), level == 10 ? 245 : 20);
    }
    EXPECT_THAT(posted(bus, GST_MESSAGE_WARNING), HasSubstr("engine fault: an illegal memory access was encountered"));
    gst_element_set_bus(element, nullptr);
    gst_object_unref(bus);

    EXPECT_EQ(counted("presented"), 2U);
    EXPECT_EQ(counted("passed-through"), 1U);
    EXPECT_EQ(counted("engine-faults"), 1U);
    EXPECT_EQ(counted("deadline-misses"), 0U);
    GstStructure* stats = nullptr;
    g_object_get(element, "stats", &stats, nullptr);
    ASSERT_NE(stats, nullptr);
    double ms = 0;
    EXPECT_TRUE(gst_structure_get_double(stats, "inference-p99-ms", &ms));
    EXPECT_GT(ms, 0);
    gst_structure_free(stats);
}

TEST_F(Element, CountsAFrameThatALateEngineNeverSawAsADeadlineMissToo) {
    script = {{0, Fault::slow}};
    deadline_ms = 20;
    play();
    for (const int level : {10, 20}) {
        ASSERT_EQ(push(level), GST_FLOW_OK);
        EXPECT_EQ(pulled(), level);
    }
    EXPECT_EQ(counted("passed-through"), 2U);
    EXPECT_EQ(counted("deadline-misses"), 2U);
}

TEST_F(Element, DropsAFrameThatCameCutShort) {
    play();
    GstBus* bus = gst_bus_new();
    gst_element_set_bus(element, bus);
    ASSERT_EQ(push(10, 100), GST_FLOW_OK);
    EXPECT_EQ(gst_harness_buffers_in_queue(harness), 0U);
    EXPECT_EQ(posted(bus, GST_MESSAGE_WARNING),
              "a frame of 100 bytes, expected 1536 (32x16 BGR): it is dropped: see what delivers it");
    ASSERT_EQ(push(20), GST_FLOW_OK);
    EXPECT_EQ(pulled(), 235);
    gst_element_set_bus(element, nullptr);
    gst_object_unref(bus);
}

#if GST_CHECK_VERSION(1, 20, 0)
TEST_F(Element, SaysOnEachBufferWhetherItIsDerainedOrWhyNot) {
    script = {{1, Fault::raise}};
    play();
    for (const auto& [level, why] : {std::pair<int, const char*>(10, nullptr), std::pair(20, "the engine failed on it"),
                                     std::pair(30, "the engine was being reopened")}) {
        ASSERT_EQ(push(level), GST_FLOW_OK);
        GstBuffer* buffer = gst_harness_pull(harness);
        GstCustomMeta* meta = gst_buffer_get_custom_meta(buffer, "DerainMeta");
        ASSERT_NE(meta, nullptr);
        const GstStructure* fields = gst_custom_meta_get_structure(meta);
        gboolean derained = FALSE;
        EXPECT_TRUE(gst_structure_get_boolean(fields, "derained", &derained));
        EXPECT_EQ(derained, why == nullptr ? TRUE : FALSE);
        EXPECT_STREQ(gst_structure_get_string(fields, "why"), why);
        gst_buffer_unref(buffer);
    }
}
#endif

TEST_F(Element, TellsOfAnEngineThatThrowsWhatIsNoError) {
    register_engine("scripted",
                    [](const Bundle&, Precision, const EngineOptions&) -> std::unique_ptr<Engine> { throw 7; });
    element = gst_element_factory_make("derain", nullptr);
    g_object_set(element, "bundle", files.path().c_str(), "engine", "scripted", nullptr);
    GstBus* bus = gst_bus_new();
    gst_element_set_bus(element, bus);
    EXPECT_EQ(gst_element_set_state(element, GST_STATE_PAUSED), GST_STATE_CHANGE_FAILURE);
    EXPECT_EQ(posted(bus, GST_MESSAGE_ERROR), "an exception of unknown type: report it");
    gst_element_set_state(element, GST_STATE_NULL);
    gst_object_unref(element);
    gst_object_unref(bus);
}

TEST_F(Element, ItsDeadlineAddsToTheLatencyOfALivePipeline) {
    for (const auto& [deadline, live, expected_ms] :
         {std::tuple(50.0, true, 70), std::tuple(50.0, false, 20), std::tuple(0.0, true, 20)}) {
        deadline_ms = deadline;
        play();
        gst_harness_set_live(harness, live ? TRUE : FALSE);
        gst_harness_set_upstream_latency(harness, 20 * ms_ns);
        EXPECT_EQ(gst_harness_query_latency(harness), static_cast<GstClockTime>(expected_ms * ms_ns))
            << deadline << " " << live;
        EXPECT_EQ(most_latency(), GST_CLOCK_TIME_NONE);
        gst_harness_teardown(std::exchange(harness, nullptr));
    }
    deadline_ms = 50;
    play();
    gst_pad_set_query_function(harness->srcpad, [](GstPad*, GstObject*, GstQuery* query) -> gboolean {
        gst_query_set_latency(query, TRUE, 10 * ms_ns, 30 * ms_ns);
        return TRUE;
    });
    EXPECT_EQ(most_latency(), static_cast<GstClockTime>(80 * ms_ns));
}

TEST_F(Element, NamesThePropertyThatIsMissing) {
    element = gst_element_factory_make("derain", nullptr);
    GstBus* bus = gst_bus_new();
    gst_element_set_bus(element, bus);
    EXPECT_EQ(gst_element_set_state(element, GST_STATE_PAUSED), GST_STATE_CHANGE_FAILURE);
    EXPECT_EQ(posted(bus, GST_MESSAGE_ERROR),
              "no bundle, expected a folder made by `derain export`: set the property bundle");
    gst_element_set_state(element, GST_STATE_NULL);
    gst_object_unref(element);
    gst_object_unref(bus);
}

/// A frame on a thread of its own, as upstream's, into an engine that is at work for two seconds.
class SlowElement : public Element {
   protected:
    SlowElement() {
        script = {{0, Fault::slow}};
        slow_ms = 2000;
        play();
        thread = std::jthread([this] { flow = push(10); });
        std::this_thread::sleep_for(std::chrono::milliseconds(600));
    }

    /// How long it is until the frame is out.
    std::int64_t out_ns() {
        const auto start_ns = monotonic_ns();
        thread.join();
        return monotonic_ns() - start_ns;
    }

    std::jthread thread;
    GstFlowReturn flow = GST_FLOW_ERROR;
};

TEST_F(SlowElement, EndsWithoutItsEngine) {
    std::jthread ender([this] { gst_element_set_state(element, GST_STATE_READY); });
    EXPECT_LT(out_ns(), 1000 * ms_ns);
}

TEST_F(SlowElement, FlushesWithoutItsEngineAndGoesOnWithIt) {
    gst_harness_push_event(harness, gst_event_new_flush_start());
    EXPECT_LT(out_ns(), 1000 * ms_ns);
    gst_harness_push_event(harness, gst_event_new_flush_stop(TRUE));
    GstSegment segment{};
    gst_segment_init(&segment, GST_FORMAT_TIME);
    gst_harness_push_event(harness, gst_event_new_segment(&segment));
    int level = 0;
    for (int tries = 0; level != 235 && tries < 100; ++tries) {  // raw, until the engine is back
        std::this_thread::sleep_for(std::chrono::milliseconds(100));
        ASSERT_EQ(push(20), GST_FLOW_OK);
        level = pulled();
    }
    EXPECT_EQ(level, 235);
}

TEST(Images, OfAnotherSizeThanTheFrameAreRefused) {
    gst_init(nullptr, nullptr);
    GstVideoInfo info{};
    gst_video_info_set_format(&info, GST_VIDEO_FORMAT_BGR, 30, 10);  // rows of 90 bytes, padded to 92
    GstBuffer* buffer = gst_buffer_new_allocate(nullptr, info.size, nullptr);
    GstVideoFrame frame{};
    ASSERT_TRUE(gst_video_frame_map(&frame, &info, buffer, GST_MAP_READWRITE));
    std::vector<std::byte> image(900);
    const std::string refused = "a frame of 900 bytes, expected 899";
    EXPECT_EQ(told([&] { return gst::read(frame, image), 0; }), "");
    EXPECT_EQ(told([&] { return gst::write(image, frame), 0; }), "");
    image.resize(899);
    EXPECT_THAT(told([&] { return gst::read(frame, image), 0; }), HasSubstr(refused));
    EXPECT_THAT(told([&] { return gst::write(image, frame), 0; }), HasSubstr(refused));
    gst_video_frame_unmap(&frame);
    gst_buffer_unref(buffer);
}

}  // namespace
}  // namespace derain::testing
