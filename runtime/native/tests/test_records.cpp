#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "derain/stream/records.hpp"

namespace derain {
namespace {

constexpr std::int64_t ms_ns = 1'000'000;

FrameRecord derained(std::int64_t id, std::int64_t captured_ns) {
    return {.id = id,
            .asked_ns = captured_ns - 2 * ms_ns,
            .captured_ns = captured_ns,
            .inference_start_ns = captured_ns + ms_ns,
            .inference_end_ns = captured_ns + 4 * ms_ns,
            .presented_ns = captured_ns + 5 * ms_ns,
            .outcome = Outcome::derained,
            .why = std::nullopt};
}

TEST(Records, WhatWasCapturedDuringTheWarmUpIsNotCountedLateResultsIncluded) {
    Tally tally(100 * ms_ns);
    tally.add(derained(0, 99 * ms_ns));
    tally.add_unused_inference(99 * ms_ns, 5);
    EXPECT_EQ(tally.frames(), 0);
    EXPECT_EQ(tally.latency().of(Stage::inference).count(), 0);
    tally.add(derained(1, 100 * ms_ns));
    tally.add_unused_inference(100 * ms_ns, 5);
    EXPECT_EQ(tally.frames(), 1);
    EXPECT_EQ(tally.latency().of(Stage::inference).total(), 3 * ms_ns + 5);
}

TEST(Records, TheReportHasTheKeysOfDerainRunInItsOrder) {
    Tally tally;
    tally.add(derained(0, 10 * ms_ns));
    FrameRecord raw = derained(1, 20 * ms_ns);
    raw.inference_start_ns = raw.inference_end_ns = std::nullopt;
    raw.outcome = Outcome::passed_through;
    raw.why = Why::deadline;
    tally.add(raw);
    tally.add({.id = 2,
               .asked_ns = 30 * ms_ns,
               .captured_ns = 30 * ms_ns,
               .inference_start_ns = {},
               .inference_end_ns = {},
               .presented_ns = {},
               .outcome = Outcome::dropped,
               .why = Why::newer});
    Guard guard(500 * ms_ns);
    guard.on(Event::fault, 0, "boom");
    const nlohmann::ordered_json json = tally.report(Policy::latest, guard, 0, 100 * ms_ns);
    const auto expected = nlohmann::ordered_json::parse(R"({
        "policy": "latest", "deadline_ms": 500.0, "frames": 3, "presented": 2, "dropped": 1, "passed_through": 1,
        "deadline_misses": 1, "engine_faults": 1, "engine_reopened": 0, "engine_state": "backing off",
        "engine_fault": "boom", "source_faults": 0, "source_fault": null, "error": null,
        "why": {"a newer frame came": 1, "missed its deadline": 1},
        "fps": 80.0, "outside_engine_share": 0.88})");
    auto rest = json;
    rest.erase("latency_ms");
    EXPECT_EQ(rest, expected) << rest;
    ASSERT_EQ(json["latency_ms"].size(), 5U);
    EXPECT_EQ(json["latency_ms"].begin().key(), "capture");
    EXPECT_NEAR(json["latency_ms"]["wait"]["p50"].get<double>(), 1, 0.002);
    EXPECT_DOUBLE_EQ(json["latency_ms"]["inference"]["max"].get<double>(), 3);
    EXPECT_DOUBLE_EQ(json["latency_ms"]["present"]["max"].get<double>(), 1);
    EXPECT_DOUBLE_EQ(json["latency_ms"]["capture_to_present"]["max"].get<double>(), 5);
    EXPECT_TRUE(json["latency_ms"]["capture"].contains("p999"));
}

TEST(Records, TheStatusIsThatOfTheLastFrames) {
    Tally tally;
    for (std::int64_t id = 0; id < 1000; ++id) {
        FrameRecord record = derained(id, id * 10 * ms_ns);
        if (id >= 744) {  // the last 256
            *record.presented_ns += 95 * ms_ns;
        }
        tally.add(record);
    }
    const auto status = tally.status(10'100 * ms_ns, State::late, "open");
    EXPECT_EQ(status.frames, 1000);
    EXPECT_NEAR(status.fps, 255 / 2.56, 1e-6);  // 10 ms after the last
    EXPECT_DOUBLE_EQ(status.p50_ms, 100);
    EXPECT_DOUBLE_EQ(status.p99_ms, 100);
    EXPECT_DOUBLE_EQ(status.age_ms, 110);
    EXPECT_EQ(status.engine, "late");
    EXPECT_EQ(Tally().status(0, State::deraining, "open").fps, 0);
}

TEST(Records, TheLiveRateFallsWhileNothingComes) {
    Tally tally;
    for (std::int64_t id = 0; id < 11; ++id) {
        tally.add(derained(id, id * 10 * ms_ns));
    }
    EXPECT_NEAR(tally.status(105 * ms_ns, State::deraining, "open").fps, 100, 1e-6);
    EXPECT_NEAR(tally.status(1'005 * ms_ns, State::deraining, "lost").fps, 10, 1e-6);
}

TEST(Records, TheLivePercentilesAreNumpysAndNeverAboveTheSlowestFrame) {
    Tally tally;
    const auto p50_and_p99 = [&tally] {
        const auto status = tally.status(1000 * ms_ns, State::deraining, "open");
        return std::pair(status.p50_ms, status.p99_ms);
    };
    EXPECT_EQ(p50_and_p99(), std::pair(0.0, 0.0));
    for (const std::int64_t age_ms : {10, 30, 20}) {
        FrameRecord record = derained(0, 100 * ms_ns);
        record.presented_ns = record.captured_ns + age_ms * ms_ns;
        tally.add(record);
    }
    EXPECT_DOUBLE_EQ(p50_and_p99().first, 20);
    EXPECT_DOUBLE_EQ(p50_and_p99().second, 29.8);
}

}  // namespace
}  // namespace derain
