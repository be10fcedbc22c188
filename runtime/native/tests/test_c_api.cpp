#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <thread>

#include "bundle_files.hpp"
#include "derain/derain.h"
#include "session.hpp"

namespace derain::testing {
namespace {

using ::testing::HasSubstr;

constexpr int soon_ms = 10'000;  // far longer than any step takes, so that only a hang runs out of it

/// A stream on an engine that inverts, or does what the script says, in a bundle that exists.
class CApi : public ::testing::Test {
   protected:
    CApi() {
        register_engine("scripted", [this](const Bundle& bundle, Precision, const EngineOptions&) {
            return std::make_unique<ScriptedEngine>(script, 300, 0, bundle);
        });
        static_cast<void>(files.load());
    }

    void TearDown() override { derain_close(stream); }

    derain_status open() { return derain_open(&options, &stream); }

    derain_status submit(int level, int timeout_ms = soon_ms) {
        const std::vector<unsigned char> bytes(make_spec().bytes(), static_cast<unsigned char>(level));
        return derain_submit(stream, bytes.data(), bytes.size(), 0, timeout_ms, &id);
    }

    derain_status receive(int timeout_ms = soon_ms) { return derain_receive(stream, timeout_ms, &frame); }

    derain_statistics statistics() {
        derain_statistics seen{.struct_size = sizeof seen};
        EXPECT_EQ(derain_get_statistics(stream, &seen), DERAIN_OK) << derain_error();
        return seen;
    }

    BundleFiles files;
    std::string path = files.path().string();
    std::map<int, Fault> script;
    derain_options options{.struct_size = sizeof options,
                           .bundle = path.c_str(),
                           .engine = "scripted",
                           .precision = "fp32",
                           .policy = DERAIN_EVERY};
    derain_stream* stream = nullptr;
    derain_frame frame{.struct_size = sizeof frame};
    std::uint64_t id = 0;
};

TEST_F(CApi, GivesEveryFrameBackCleanAndInOrder) {
    ASSERT_EQ(open(), DERAIN_OK) << derain_error();
    for (int level = 0; level < 20; ++level) {
        ASSERT_EQ(submit(level), DERAIN_OK) << derain_error();
        EXPECT_EQ(id, static_cast<std::uint64_t>(level));
        ASSERT_EQ(receive(), DERAIN_OK) << derain_error();
        EXPECT_EQ(frame.id, id);
        EXPECT_EQ(frame.derained, 1);
        EXPECT_EQ(frame.why, nullptr);
        EXPECT_EQ(frame.bytes, make_spec().bytes());
        EXPECT_EQ(frame.data[0], 255 - level);
        EXPECT_LE(frame.captured_ns, frame.inference_start_ns);
        EXPECT_LE(frame.inference_end_ns, frame.ready_ns);
    }
    ASSERT_EQ(derain_finish(stream), DERAIN_OK);
    EXPECT_EQ(receive(), DERAIN_END);
    const derain_statistics seen = statistics();
    EXPECT_EQ(seen.frames, 20U);
    EXPECT_EQ(seen.presented, 20U);
    EXPECT_EQ(seen.passed_through + seen.dropped + seen.engine_faults + seen.unreceived, 0U);
    EXPECT_GT(seen.capture_to_present.p50, 0);
    EXPECT_GE(seen.capture_to_present.max, seen.inference.p50);
}

TEST_F(CApi, GivesTheRawFrameWhereTheEngineFails) {
    script = {{1, Fault::raise}};
    ASSERT_EQ(open(), DERAIN_OK) << derain_error();
    ASSERT_EQ(submit(10), DERAIN_OK);
    ASSERT_EQ(receive(), DERAIN_OK);
    EXPECT_EQ(frame.data[0], 245);
    ASSERT_EQ(submit(11), DERAIN_OK);
    ASSERT_EQ(receive(), DERAIN_OK);
    EXPECT_EQ(frame.derained, 0);
    EXPECT_EQ(frame.data[0], 11);
    EXPECT_STREQ(frame.why, "the engine failed on it");
    EXPECT_EQ(frame.inference_start_ns, 0);
    EXPECT_EQ(statistics().passed_through, 1U);
    EXPECT_EQ(statistics().engine_faults, 1U);
}

TEST_F(CApi, GivesTheRawFrameWhereTheDeadlinePasses) {
    script = {{0, Fault::slow}};
    options.deadline_ms = 100;
    ASSERT_EQ(open(), DERAIN_OK) << derain_error();
    ASSERT_EQ(submit(10), DERAIN_OK);
    ASSERT_EQ(receive(), DERAIN_OK);
    EXPECT_EQ(frame.derained, 0);
    EXPECT_EQ(frame.data[0], 10);
    EXPECT_EQ(statistics().deadline_misses, 1U);
}

TEST_F(CApi, TakesACaptureTimeOfAnotherClockForNowAndSaysSoOnce) {
    script = {{0, Fault::slow}, {1, Fault::slow}, {2, Fault::slow}};
    options.deadline_ms = 100;
    std::atomic<int> warned = 0;
    options.user = &warned;
    options.warn = [](void* user, const char* line) {
        *static_cast<std::atomic<int>*>(user) += std::string(line).find("captured_ns") != std::string::npos ? 1 : 0;
    };
    ASSERT_EQ(open(), DERAIN_OK) << derain_error();
    const std::vector<unsigned char> bytes(make_spec().bytes(), 10);
    for (const auto off_ns : {3600 * second_ns, -11 * second_ns, -monotonic_ns() - 1}) {
        const auto before_ns = monotonic_ns();
        ASSERT_EQ(derain_submit(stream, bytes.data(), bytes.size(), before_ns + off_ns, soon_ms, &id), DERAIN_OK);
        ASSERT_EQ(receive(), DERAIN_OK);
        EXPECT_STREQ(frame.why, "missed its deadline") << off_ns;
        EXPECT_GE(frame.captured_ns, before_ns);
        EXPECT_LE(frame.captured_ns, monotonic_ns());
        std::this_thread::sleep_for(std::chrono::milliseconds(400));  // the engine is back
    }
    EXPECT_EQ(warned, 1);
}

TEST_F(CApi, CountsTheInferenceOfAFrameThatWentOutRaw) {
    script = {{0, Fault::slow}};  // 300 ms
    options.deadline_ms = 100;
    ASSERT_EQ(open(), DERAIN_OK) << derain_error();
    ASSERT_EQ(submit(10), DERAIN_OK);
    ASSERT_EQ(receive(), DERAIN_OK);
    EXPECT_EQ(frame.derained, 0);
    for (int left = soon_ms; left > 0 && statistics().inference.max == 0; --left) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    EXPECT_GE(statistics().inference.max, 300);
}

TEST_F(CApi, MakesTheSubmitterWaitUnderEvery) {
    ASSERT_EQ(open(), DERAIN_OK) << derain_error();
    int taken = 0;
    while (submit(taken, 500) == DERAIN_OK) {
        ++taken;
    }
    EXPECT_LT(taken, 10);
    ASSERT_EQ(derain_finish(stream), DERAIN_OK);
    for (int level = 0; level < taken; ++level) {
        ASSERT_EQ(receive(), DERAIN_OK);
        EXPECT_EQ(frame.data[0], 255 - level);
    }
    EXPECT_EQ(receive(), DERAIN_END);
}

TEST_F(CApi, KeepsTheNewestUnderLatest) {
    options.policy = DERAIN_LATEST;
    ASSERT_EQ(open(), DERAIN_OK) << derain_error();
    for (int level = 0; level < 50; ++level) {
        ASSERT_EQ(submit(level, 0), DERAIN_OK) << level;
    }
    derain_finish(stream);
    std::uint64_t last = 0;
    while (receive() == DERAIN_OK) {
        last = frame.id;
    }
    EXPECT_EQ(last, 49U);
    const derain_statistics seen = statistics();
    EXPECT_EQ(seen.frames, 50U);
    EXPECT_EQ(seen.presented + seen.dropped, 50U);
}

TEST_F(CApi, WaitsNoLongerThanItWasTold) {
    ASSERT_EQ(open(), DERAIN_OK) << derain_error();
    EXPECT_EQ(receive(0), DERAIN_TIMEOUT);
    EXPECT_EQ(receive(20), DERAIN_TIMEOUT);
}

TEST_F(CApi, TellsTheFormats) {
    ASSERT_EQ(open(), DERAIN_OK) << derain_error();
    derain_format input{.struct_size = sizeof input};
    ASSERT_EQ(derain_formats(stream, &input, nullptr), DERAIN_OK);
    EXPECT_EQ(input.width, 32);
    EXPECT_EQ(input.height, 16);
    EXPECT_STREQ(input.pixels, "bgr8");
    EXPECT_STREQ(input.matrix, "bt601");
    EXPECT_EQ(input.bytes, make_spec().bytes());
}

TEST_F(CApi, EndsAtOnceWhereNothingWasSubmitted) {
    ASSERT_EQ(open(), DERAIN_OK) << derain_error();
    ASSERT_EQ(derain_finish(stream), DERAIN_OK);
    EXPECT_EQ(receive(), DERAIN_END) << derain_error();
    EXPECT_EQ(submit(1), DERAIN_FAULT);
    EXPECT_THAT(derain_error(), HasSubstr("no frame can follow"));
}

TEST_F(CApi, ClosesWithFramesInside) {
    script = {{0, Fault::slow}};
    ASSERT_EQ(open(), DERAIN_OK) << derain_error();
    for (int level = 0; level < 4; ++level) {
        ASSERT_EQ(submit(level), DERAIN_OK);
    }
    derain_close(std::exchange(stream, nullptr));
}

TEST(Session, LeavesAnEngineThatHangsBehindWhenItIsClosed) {
    auto engine = opened(std::make_shared<HangingEngine>());
    auto session = std::make_unique<Session>(engine, Session::Options{.patience_s = 0.05});
    const std::vector<std::byte> frame(make_spec().bytes());
    ASSERT_TRUE(session->submit(frame, 0, std::nullopt));
    while (!engine->hangs()) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    session.reset();
    EXPECT_TRUE(engine->hangs());
    HangingEngine::let_go(std::exchange(engine, nullptr));
}

TEST(Session, ThatFailedHasNotEndedButTellsWhy) {
    const Tell throws_an_error = [](std::string_view) { throw Error("nobody listens"); };
    const Tell throws_a_number = [](std::string_view) { throw 7; };
    for (const auto& [tell, why] : {std::pair(throws_an_error, "nobody listens"),
                                    std::pair(throws_a_number, "an exception of unknown type: report it")}) {
        Session session(opened(std::make_shared<ScriptedEngine>()), {.policy = Policy::every, .tell = tell});
        const std::vector<std::byte> frame(make_spec().bytes());
        ASSERT_TRUE(session.submit(frame, 1, std::nullopt));  // a time of another clock is told of
        for (int time = 0; time < 2; ++time) {
            EXPECT_EQ(told([&] { return session.receive(std::nullopt).has_value(); }), why);
            EXPECT_FALSE(session.ended());
        }
    }
}

TEST_F(CApi, LetsOneThreadSubmitWhileAnotherReceives) {
    ASSERT_EQ(open(), DERAIN_OK) << derain_error();
    auto received = std::async(std::launch::async, [this] {
        int frames = 0;
        while (receive() == DERAIN_OK) {
            frames += frame.data[0] == 255 - frames % 256 ? 1 : 1000;
        }
        return frames;
    });
    for (int level = 0; level < 500; ++level) {
        ASSERT_EQ(submit(level % 256), DERAIN_OK);
    }
    derain_finish(stream);
    EXPECT_EQ(received.get(), 500);
}

TEST_F(CApi, WarnsTheCaller) {
    script = {{0, Fault::raise}};
    std::promise<std::string> warned;
    options.user = &warned;
    options.warn = [](void* user, const char* line) { static_cast<std::promise<std::string>*>(user)->set_value(line); };
    ASSERT_EQ(open(), DERAIN_OK) << derain_error();
    ASSERT_EQ(submit(1), DERAIN_OK);
    auto line = warned.get_future();
    ASSERT_EQ(line.wait_for(std::chrono::seconds(10)), std::future_status::ready);
    EXPECT_THAT(line.get(), HasSubstr("illegal memory access"));
}

TEST_F(CApi, WarnsTheCallerOnOneThreadAtATime) {
    struct Listener {
        std::atomic<int> inside = 0, at_once = 0;
        std::promise<void> fault, clock;
    } listener;
    script = {{0, Fault::raise}};  // told by the loop
    options.user = &listener;
    options.warn = [](void* user, const char* line) {
        auto& at = *static_cast<Listener*>(user);
        at.at_once = std::max(at.at_once.load(), ++at.inside);
        if (std::string(line).starts_with("engine fault")) {
            at.fault.set_value();
            std::this_thread::sleep_for(std::chrono::milliseconds(300));
        } else if (std::string(line).starts_with("captured_ns")) {
            at.clock.set_value();
        }
        --at.inside;
    };
    ASSERT_EQ(open(), DERAIN_OK) << derain_error();
    ASSERT_EQ(submit(1), DERAIN_OK);
    ASSERT_EQ(listener.fault.get_future().wait_for(std::chrono::seconds(10)), std::future_status::ready);
    const std::vector<unsigned char> bytes(make_spec().bytes(), 2);  // of another clock: told by the capture thread
    ASSERT_EQ(derain_submit(stream, bytes.data(), bytes.size(), 1, soon_ms, nullptr), DERAIN_OK);
    EXPECT_EQ(listener.clock.get_future().wait_for(std::chrono::seconds(10)), std::future_status::ready);
    derain_close(std::exchange(stream, nullptr));
    EXPECT_EQ(listener.at_once, 1);
}

TEST_F(CApi, CanBeClosedByAWarning) {
    struct Closer {
        derain_stream*& stream;
        std::promise<void> closed;
    } closer{stream, {}};
    script = {{0, Fault::raise}};
    options.user = &closer;
    options.warn = [](void* user, const char*) {
        auto& at = *static_cast<Closer*>(user);
        derain_close(std::exchange(at.stream, nullptr));
        at.closed.set_value();
    };
    ASSERT_EQ(open(), DERAIN_OK) << derain_error();
    ASSERT_EQ(submit(1), DERAIN_OK);
    EXPECT_EQ(closer.closed.get_future().wait_for(std::chrono::seconds(10)), std::future_status::ready);
    std::this_thread::sleep_for(std::chrono::milliseconds(300));  // the stream ends behind it
}

TEST_F(CApi, NeverCountsMoreFramesOutThanIn) {
    options.policy = DERAIN_LATEST;
    ASSERT_EQ(open(), DERAIN_OK) << derain_error();
    std::atomic<bool> stop = false;
    std::atomic<int> wrong = 0;
    std::jthread asking([&] {
        while (!stop) {
            const derain_statistics seen = statistics();
            wrong += seen.presented + seen.dropped > seen.frames ? 1 : 0;
            std::this_thread::yield();  // the lock is for whoever is quickest, and this would be it for minutes
        }
    });
    for (int count = 0; count < 20'000; ++count) {
        ASSERT_EQ(submit(count % 256), DERAIN_OK);
    }
    stop = true;
    asking.join();
    EXPECT_EQ(wrong, 0);
}

TEST_F(CApi, ReadsAndWritesNoMoreThanTheCallersStruct) {
    struct Newer {
        derain_options known;
        double added;
    } newer{.known = options, .added = 3};
    newer.known.struct_size = sizeof newer;
    ASSERT_EQ(derain_open(&newer.known, &stream), DERAIN_OK) << derain_error();
    frame.struct_size = 8;
    EXPECT_EQ(receive(0), DERAIN_FAULT);
    EXPECT_THAT(derain_error(), HasSubstr("frame.struct_size is 8, expected at least"));
}

TEST_F(CApi, RefusesBadOptionsInOneLine) {
    const auto refused = [this](auto change, const char* why) {
        derain_options bad = options;
        change(bad);
        stream = reinterpret_cast<derain_stream*>(this);
        EXPECT_EQ(derain_open(&bad, &stream), DERAIN_FAULT);
        EXPECT_EQ(stream, nullptr);
        EXPECT_THAT(derain_error(), HasSubstr(why));
    };
    refused([](auto& bad) { bad.struct_size = 0; }, "options.struct_size is 0, expected at least");
    refused([](auto& bad) { bad.bundle = nullptr; }, "options.bundle is NULL");
    refused([](auto& bad) { bad.bundle = "/nowhere"; }, "/nowhere: no such bundle");
    refused([](auto& bad) { bad.engine = "abacus"; }, "engine 'abacus' is unknown");
    refused([](auto& bad) { bad.precision = "fp64"; }, "'fp64' is unknown, known are: fp32, fp16, int8, fp8");
    refused([](auto& bad) { bad.policy = 7; }, "options.policy is 7");
    refused([](auto& bad) { bad.deadline_ms = -1; }, "options.deadline_ms is negative");
}

TEST_F(CApi, RefusesFramesOfAnotherSizeAndNull) {
    ASSERT_EQ(open(), DERAIN_OK) << derain_error();
    EXPECT_EQ(derain_submit(stream, "x", 1, 0, 0, nullptr), DERAIN_FAULT);
    EXPECT_THAT(derain_error(), HasSubstr("frame is 1 bytes, expected 1536"));
    EXPECT_EQ(derain_submit(stream, nullptr, 1536, 0, 0, nullptr), DERAIN_FAULT);
    EXPECT_THAT(derain_error(), HasSubstr("data is NULL"));
    EXPECT_EQ(derain_receive(nullptr, 0, &frame), DERAIN_FAULT);
    EXPECT_THAT(derain_error(), HasSubstr("stream is NULL"));
}

TEST_F(CApi, RefusesABundleWhoseRawFrameCouldNotStandIn) {
    files.manifest["output"]["pixels"] = "rgb8";
    static_cast<void>(files.load());
    EXPECT_EQ(open(), DERAIN_FAULT);
    EXPECT_THAT(derain_error(), HasSubstr("a raw frame cannot stand in for a clean one"));
}

}  // namespace
}  // namespace derain::testing
