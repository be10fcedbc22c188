/// Pipelines that GStreamer really runs.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <future>
#include <thread>

#include "derain/stream/clock.hpp"
#include "file_descriptor.hpp"
#include "gstreamer_source.hpp"
#include "gstreamer_support.hpp"
#include "stream_support.hpp"

namespace derain {
namespace {

using Gstreamer = testing::Pipelines;
using Pixel = std::array<std::byte, 3>;
using testing::fault;

constexpr GstreamerPatience patience{.first_ms = 60'000, .next_ms = 60'000};
constexpr GstreamerPatience impatience{.first_ms = 300, .next_ms = 300};
constexpr const char* caps = "video/x-raw,width=32,height=16,framerate=25/1";
constexpr const char* one_frame_in_ten_seconds =
    "videotestsrc is-live=true ! video/x-raw,width=32,height=16,framerate=1/10";
constexpr Pixel red{std::byte{0}, std::byte{0}, std::byte{255}};

std::string pattern(const std::string& name, int frames) {
    return "videotestsrc pattern=" + name + " num-buffers=" + std::to_string(frames) + " ! " + caps;
}

std::string fault_of(const std::string& pipeline, const GstreamerPatience& patient = patience) {
    return fault([&] { make_gstreamer_source(pipeline, testing::make_spec(), patient); });
}

TEST_F(Gstreamer, AnAppsinkThatDropsNothingGivesEveryFrameAndThenTheEnd) {
    const auto pipeline = pattern("red", 3) + ",format=BGR ! appsink sync=false";
    const auto source = make_gstreamer_source(pipeline, testing::make_spec(), patience);
    EXPECT_TRUE(source->live());
    EXPECT_EQ(source->fps(), 25);
    for (std::int64_t id = 0; id < 3; ++id) {
        const auto frame = source->next();
        ASSERT_TRUE(frame);
        EXPECT_EQ(frame->id, id);
        EXPECT_LE(frame->asked_ns, frame->captured_ns);
        const auto bytes = frame->picture.bytes();
        ASSERT_EQ(bytes.size(), testing::make_spec().bytes());
        for (std::size_t at = 0; at < bytes.size(); ++at) {
            ASSERT_EQ(bytes[at], red.at(at % 3)) << at;
        }
    }
    EXPECT_EQ(fault([&] { source->next(); }), "gst:" + pipeline + ": the pipeline ended: try it with `gst-launch-1.0`");
}

TEST_F(Gstreamer, AFrameOfALivePipelineIsAsOldAsItsWayThroughItWasLong) {
    for (const bool live : {true, false}) {
        const auto source = make_gstreamer_source("videotestsrc is-live=" + std::string(live ? "true" : "false") +
                                                      " ! video/x-raw,width=32,height=16,framerate=2/1 ! "
                                                      "identity sleep-time=200000",
                                                  testing::make_spec(), patience);
        for (int count = 0; count < 2; ++count) {
            const auto frame = source->next();
            const auto age_ns = monotonic_ns() - frame->captured_ns;
            EXPECT_EQ(age_ns >= second_ns / 5, live) << age_ns;
        }
    }
}

TEST_F(Gstreamer, AnAppsinkThatIsGivenHoldsNoFrameOfALivePipelineBack) {
    const auto source = make_gstreamer_source(
        "videotestsrc is-live=true ! video/x-raw,width=32,height=16,framerate=10/1 ! videoconvert ! "
        "appsink ts-offset=1000000000",
        testing::make_spec(), patience);
    std::int64_t youngest_ns = second_ns;
    for (int count = 0; count < 20; ++count) {
        const auto frame = source->next();
        youngest_ns = std::min(youngest_ns, monotonic_ns() - frame->captured_ns);
    }
    EXPECT_LT(youngest_ns, second_ns / 2);
}

TEST_F(Gstreamer, ASlowReaderMissesFramesUnderLatestAndNoneUnderEvery) {
    for (const std::string sink : {"", " ! videoconvert ! appsink drop=true max-buffers=1 sync=false"}) {
        for (const auto policy : {Policy::latest, Policy::every}) {
            const auto source = make_gstreamer_source(pattern("red", 30) + sink, testing::make_spec(), patience);
            source->set_policy(policy);
            int frames = 0;
            static_cast<void>(fault([&] {
                for (; source->next(); ++frames) {
                    std::this_thread::sleep_for(std::chrono::milliseconds(20));
                }
            }));
            EXPECT_EQ(frames == 30, policy == Policy::every) << frames;
        }
    }
}

TEST_F(Gstreamer, APipelineWithoutAnAppsinkIsConvertedAndGivesItsNewestFrame) {
    const auto source = make_gstreamer_source("videotestsrc pattern=red ! " + std::string(caps) + ",format=RGBA",
                                              testing::make_spec("frame", Pixels::rgb8), patience);
    for (int count = 0; count < 3; ++count) {
        const auto bytes = source->next()->picture;
        EXPECT_EQ(Pixel({bytes.bytes()[0], bytes.bytes()[1], bytes.bytes()[2]}), Pixel({red[2], red[1], red[0]}));
    }
    source->close();
    EXPECT_FALSE(source->next());
}

TEST_F(Gstreamer, ARateThatNoCameraHasIsNotBelieved) {
    for (const auto& [rate, believed] : {std::pair("240/1", true), std::pair("90000/1", false)}) {
        const auto source = make_gstreamer_source(
            "videotestsrc num-buffers=1 ! video/x-raw,width=32,height=16,framerate=" + std::string(rate),
            testing::make_spec(), patience);
        EXPECT_EQ(source->fps().has_value(), believed) << rate;
    }
}

TEST_F(Gstreamer, RowsWithPaddingAreCopiedTight) {
    FrameSpec spec = testing::make_spec();
    spec.width = 30;
    const auto source = make_gstreamer_source("videotestsrc pattern=red num-buffers=1 ! video/x-raw,width=30,height=16",
                                              spec, patience);
    const auto picture = source->next()->picture;
    ASSERT_EQ(picture.bytes().size(), spec.bytes());
    for (std::size_t at = 0; at < spec.bytes(); ++at) {
        ASSERT_EQ(picture.bytes()[at], red.at(at % 3)) << at;
    }
}

TEST_F(Gstreamer, FramesOfAnotherSizeAreRefusedAtTheStartAndScaledInMidStream) {
    const auto source = make_gstreamer_source("videotestsrc ! video/x-raw,width=64,height=16", testing::make_spec());
    EXPECT_NE(fault([&] { source->next(); }).find("frames are 64x16, the bundle expects 32x16"), std::string::npos);
    const auto growing = make_gstreamer_source(
        "concat name=all ! videoconvert ! appsink sync=false " + pattern("red", 1) +
            " ! all. videotestsrc num-buffers=1 ! video/x-raw,width=64,height=16,framerate=25/1 ! all.",
        testing::make_spec(), patience);
    EXPECT_TRUE(growing->next()->fits);
    const auto scaled = growing->next();
    EXPECT_FALSE(scaled->fits);
    EXPECT_EQ(scaled->picture.bytes().size(), testing::make_spec().bytes());
}

TEST_F(Gstreamer, APipelineIsOpenedAgainAfterItsEnd) {
    const auto source = make_gstreamer_source(pattern("red", 1), testing::make_spec(), patience);
    EXPECT_TRUE(source->next());
    EXPECT_NE(fault([&] { source->next(); }), "");
    EXPECT_TRUE(source->reopened()->next());
}

TEST_F(Gstreamer, WhatDoesNotStartSaysWhyInOneLineWithoutCredentials) {
    for (const auto& [pipeline, why] : {
             std::pair("videotestsrc !", "videotestsrc !: does not start (syntax error)"),
             std::pair("videotestsrc ! nothing user-pw=secret",
                       "videotestsrc ! nothing user-pw=***: does not start (no element \"nothing\")"),
             std::pair("appsink", "appsink: does not start (it is one element, expected several joined by `!`)"),
             std::pair("filesrc location=/appsink ! fakesink",
                       "filesrc location=/appsink ! fakesink: does not start (it names an appsink, but has none)"),
             std::pair("filesrc location=/nowhere ! decodebin",
                       "filesrc location=/nowhere ! decodebin: does not start (Resource not found. No such file "
                       "\"/nowhere\")"),
             std::pair("videotestsrc num-buffers=0", "videotestsrc num-buffers=0: ended without a frame"),
         }) {
        EXPECT_EQ(fault_of(pipeline), std::string("gst:") + why + ": try it with `gst-launch-1.0`");
    }
}

TEST_F(Gstreamer, AFailureOfARunningPipelineGivesItsReason) {
    const auto source = make_gstreamer_source(
        "videotestsrc is-live=true ! video/x-raw,width=32,height=16,framerate=2/1 ! identity error-after=3",
        testing::make_spec(), patience);
    const auto why = fault([&] {
        while (source->next()) {
        }
    });
    EXPECT_NE(why.find(": the pipeline failed (Failed after iterations as requested.): try it"), std::string::npos)
        << why;
}

TEST_F(Gstreamer, WithoutAFrameTheWaitIsBounded) {
    EXPECT_EQ(fault_of("appsrc is-live=true", impatience),
              "gst:appsrc is-live=true: no frame within 300 ms: try it with `gst-launch-1.0`");
    const auto source = make_gstreamer_source(one_frame_in_ten_seconds, testing::make_spec(),
                                              {.first_ms = patience.first_ms, .next_ms = impatience.next_ms});
    EXPECT_TRUE(source->next());
    EXPECT_NE(fault([&] { source->next(); }).find(": no frame within 300 ms: "), std::string::npos);
}

TEST_F(Gstreamer, AnElementThatBlocksAsItStartsBlocksNobodyElse) {
    const testing::Folder folder;
    const auto fifo = (folder.path() / "fifo").string();
    ASSERT_EQ(::mkfifo(fifo.c_str(), S_IRUSR | S_IWUSR), 0);
    EXPECT_NE(fault_of("filesrc location=" + fifo + " ! decodebin", impatience).find("no frame within 300 ms"),
              std::string::npos);
    const FileDescriptor writer(::open(fifo.c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC));
    EXPECT_TRUE(writer);  // it was still being opened for reading, and now goes on to its end
}

TEST_F(Gstreamer, AReadEndsWhenTheSourceIsClosed) {
    const auto source = make_gstreamer_source(one_frame_in_ten_seconds, testing::make_spec(), patience);
    EXPECT_TRUE(source->next());
    auto read = std::async(std::launch::async, [&] { return source->next(); });
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    source->close();
    EXPECT_FALSE(read.get());
}

}  // namespace
}  // namespace derain
