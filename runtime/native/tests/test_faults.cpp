/// Every fault end to end, on real threads: no crash, no frozen picture, the raw frame in time, the counters right.
///
/// The machine may be busy, so times are asserted with `slack_ms`, which is still below what the fault itself takes.
#include <gtest/gtest.h>

#include <numeric>
#include <set>

#include "derain/stream/streams.hpp"
#include "stream_support.hpp"

namespace derain {
namespace {

using testing::Fault;
using testing::ScriptedEngine;

constexpr double period_deadline_ms = 60;
constexpr double slack_ms = 250;

/// Keeps whether what it is shown is raw; for the writes from `full` to `room` there is no space.
class MemorySink final : public Sink {
   public:
    MemorySink(int full, int room) : Sink("memory", testing::make_spec("clean")), full_(full), room_(room) {}

    std::vector<bool> raw;

   private:
    void put(std::span<const std::byte>, std::int64_t, bool is_raw) override {
        const int write = writes_++;
        if (write >= full_ && write < room_) {
            throw WriteError("memory: No space left on device");
        }
        raw.push_back(is_raw);
    }

    int full_, room_, writes_ = 0;
};

struct Setup {
    std::string source = "test://rain?live=1&frames=60&fps=60";
    std::map<int, Fault> script = {};
    std::optional<double> deadline_ms = std::nullopt;
    int slow_ms = 200;
    int refusals = 0;
    int full = 0, room = 0;
    double stalled_after_s = stall_s;
    std::function<bool()> stop = nullptr;
};

/// A finished run with everything it left, checked for what must hold whatever the fault.
struct Finished {
    explicit Finished(const Setup& setup)
        : engine(std::make_shared<ScriptedEngine>(setup.script, setup.slow_ms, setup.refusals)) {
        const std::shared_ptr<Source> source = open_source(setup.source, testing::make_spec());
        MemorySink sink(setup.full, setup.room);
        std::vector<bool> raw;
        report = run(testing::opened(engine), source, sink,
                     {.deadline_ms = setup.deadline_ms,
                      .stalled_after_s = setup.stalled_after_s,
                      .on_frame =
                          [&](const FrameRecord& record, const Frame& frame, const Picture& picture) {
                              presented.push_back(record);
                              raw.push_back(picture == frame.picture);
                          },
                      .on_drop = [&](const FrameRecord& record) { dropped.push_back(record); },
                      .on_status = [&](const Status& status) { states.push_back(status.source); },
                      .tell =
                          [&](std::string_view line) {
                              const std::scoped_lock lock(telling);
                              told.emplace_back(line);
                          },
                      .stop = setup.stop});
        std::vector<std::int64_t> ids;
        for (std::size_t index = 0; index < presented.size(); ++index) {
            const auto& record = presented[index];
            ids.push_back(record.id);
            oldest_ms = std::max(oldest_ms, static_cast<double>(*record.presented_ns - record.captured_ns) / 1e6);
            EXPECT_EQ(raw[index], record.outcome == Outcome::passed_through) << record.id;
            if (record.why) {
                why.insert(*record.why);
            }
        }
        EXPECT_TRUE(std::ranges::is_sorted(ids));
        for (const auto& record : dropped) {
            ids.push_back(record.id);
        }
        std::ranges::sort(ids);
        std::vector<std::int64_t> all(static_cast<std::size_t>(report.frames));
        std::iota(all.begin(), all.end(), 0);
        EXPECT_EQ(ids, all);
        EXPECT_EQ(report.presented, static_cast<std::int64_t>(presented.size()));
        EXPECT_EQ(report.presented, sink.written());
        EXPECT_EQ(raw, sink.raw);
        EXPECT_EQ(report.passed_through, std::ranges::count(raw, true));
        EXPECT_EQ(report.dropped, static_cast<std::int64_t>(dropped.size()));
        EXPECT_EQ(report.deadline_misses, std::ranges::count_if(presented, [](const auto& one) {
                      return one.why == Why::deadline || one.why == Why::late;
                  }));
        const auto not_derained =
            std::accumulate(report.why.begin(), report.why.end(), std::int64_t{0},
                            [](std::int64_t sum, const auto& entry) { return sum + entry.second; });
        EXPECT_EQ(not_derained, report.passed_through + report.dropped);
    }

    [[nodiscard]] bool recovered() const { return presented.back().outcome == Outcome::derained; }

    std::shared_ptr<ScriptedEngine> engine;
    RunReport report{};
    std::vector<FrameRecord> presented, dropped;
    std::vector<std::string> states;
    std::mutex telling;
    std::vector<std::string> told;
    std::set<Why> why;
    double oldest_ms = 0;
};

TEST(Faults, AFullDiskEndsARunThatMayLoseNothingAndTheReportOfWhatWasShownComesFirst) {
    const std::shared_ptr<Source> source = open_source("test://rain?frames=20", testing::make_spec());
    MemorySink sink(5, 20);
    std::optional<RunReport> report;
    EXPECT_THROW(run(testing::opened(std::make_shared<ScriptedEngine>(std::map<int, Fault>{}, 200, 0)), source, sink,
                     {.on_report = [&report](const RunReport& made) { report = made; }}),
                 WriteError);
    ASSERT_TRUE(report);
    EXPECT_EQ(report->error, "memory: No space left on device");
    EXPECT_EQ(report->presented, 5);
}

TEST(Faults, WithoutOneEveryFrameOfACameraIsDerainedInTime) {
    const Finished done({.deadline_ms = 1000});
    EXPECT_EQ(done.report.policy, Policy::latest);
    EXPECT_EQ(done.report.passed_through, 0);
    EXPECT_EQ(done.report.engine_state, State::deraining);
}

class OfTheEngine : public ::testing::TestWithParam<Fault> {};

TEST_P(OfTheEngine, ShowsThatFrameRawAndDerainedOnesAfterTheReopening) {
    const Finished done({.script = {{10, GetParam()}}});
    EXPECT_EQ(done.why.count(Why::fault), 1U);
    EXPECT_EQ(done.report.why.at("the engine failed on it"), 1);
    EXPECT_EQ(done.report.engine_faults, 1);
    EXPECT_EQ(done.report.engine_reopened, 1);
    EXPECT_EQ(done.engine->openings(), 2);
    EXPECT_TRUE(done.recovered());
    EXPECT_LT(done.oldest_ms, slack_ms);
    EXPECT_EQ(done.report.engine_fault->find('\n'), std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(Faults, OfTheEngine,
                         ::testing::Values(Fault::raise, Fault::out_of_memory, Fault::foreign, Fault::black,
                                           Fault::frozen));

TEST(Faults, ASlowEngineIsNotWaitedForAndItsLateResultsAreThrownAway) {
    const Finished done({.source = "test://rain?live=1&frames=90&fps=60",
                         .script = {{20, Fault::slow}},
                         .deadline_ms = period_deadline_ms,
                         .slow_ms = 600});
    EXPECT_TRUE(done.why.contains(Why::deadline));
    EXPECT_TRUE(done.why.contains(Why::late));
    EXPECT_EQ(done.report.engine_faults, 0);
    EXPECT_LT(done.oldest_ms, period_deadline_ms + slack_ms);
    EXPECT_TRUE(done.recovered());
    EXPECT_GE(done.report.latency_ms.at(Stage::inference).max, 600);
    for (std::size_t index = 1; index < done.presented.size(); ++index) {  // the picture never froze
        const auto gap_ns = *done.presented[index].presented_ns - *done.presented[index - 1].presented_ns;
        EXPECT_LT(static_cast<double>(gap_ns) / 1e6, period_deadline_ms + slack_ms);
    }
}

TEST(Faults, AnEngineFileThatIsAwayIsAskedForAgainUntilItIsBack) {
    const Finished done(
        {.source = "test://rain?live=1&frames=90&fps=60", .script = {{10, Fault::raise}}, .refusals = 2});
    EXPECT_EQ(done.report.engine_faults, 3);
    EXPECT_EQ(done.report.engine_reopened, 1);
    EXPECT_EQ(done.report.engine_fault, "engine.plan: no such file");
    EXPECT_TRUE(done.recovered());
    EXPECT_LT(done.oldest_ms, slack_ms);
}

TEST(Faults, AnEngineThatFailsForEverIsGivenUpAndEveryFrameStillComesOut) {
    std::map<int, Fault> always;
    for (int frame = 0; frame < 1000; ++frame) {
        always[frame] = Fault::raise;
    }
    const Finished done({.source = "test://rain?live=1&fps=40&frames=180", .script = always});
    EXPECT_EQ(done.report.engine_state, State::raw);
    EXPECT_EQ(done.report.engine_faults, 6);
    EXPECT_EQ(done.report.engine_reopened, 5);
    EXPECT_EQ(done.report.passed_through, done.report.presented);
    EXPECT_EQ(done.presented.back().why, Why::given_up);
}

TEST(Faults, AnUnpluggedCameraIsOpenedAgainAndTheNumberingGoesOn) {
    const Finished done({.source = "test://rain?live=1&frames=60&fps=60&unplug=20&outage=0.3"});
    EXPECT_EQ(done.report.source_faults, 1);
    EXPECT_TRUE(done.report.source_fault->find(": unplugged; not back: ") != std::string::npos);
    EXPECT_EQ(done.report.frames, 59);  // the one at which it was unplugged never came
    EXPECT_TRUE(done.recovered());
}

TEST(Faults, AStalledCameraIsLeftBehindAndOpenedAgain) {
    const Finished done({.source = "test://rain?live=1&frames=90&fps=60&stall=20&outage=0.8", .stalled_after_s = 0.2});
    EXPECT_GE(done.report.source_faults, 1);
    EXPECT_TRUE(done.report.source_fault->starts_with("no frame for 0."));
    EXPECT_TRUE(
        std::ranges::any_of(done.states, [](const auto& state) { return state.starts_with("lost (no frame"); }));
    EXPECT_EQ(done.states.back(), "open");
    EXPECT_GE(done.report.frames, 60);
    EXPECT_TRUE(done.recovered());
}

TEST(Faults, ACameraThatChangesItsSizeIsShownRawUntilItChangesBack) {
    const Finished done({.source = "test://rain?live=1&frames=60&fps=60&resize=20&outage=0.3"});
    EXPECT_EQ(done.report.frames, 60);
    EXPECT_EQ(done.why.count(Why::unfit), 1U);
    EXPECT_TRUE(done.recovered());
    EXPECT_EQ(done.report.source_faults, 0);
}

TEST(Faults, FramesCutShortAreCountedAndNotShownAndCostNoWholeOne) {
    const Finished done({.source = "test://rain?live=1&frames=60&fps=60&truncate=20&outage=0.3"});
    std::vector<std::int64_t> broken;
    for (const auto& record : done.dropped) {
        if (record.why == Why::broken) {
            broken.push_back(record.id);
        }
    }
    ASSERT_GE(broken.size(), 5U);
    EXPECT_EQ(broken.front(), 20);
    EXPECT_EQ(broken.back(), 20 + static_cast<std::int64_t>(broken.size()) - 1);
    EXPECT_EQ(done.report.why.at("the camera's frame came broken"), static_cast<std::int64_t>(broken.size()));
    EXPECT_EQ(done.report.frames, 60);
    EXPECT_EQ(done.report.passed_through, 0);
    EXPECT_EQ(done.report.source_faults, 0);
    EXPECT_TRUE(done.recovered());
}

TEST(Faults, ACameraThatDeliversOnlyFramesCutShortIsLeftBehindAndOpenedAgain) {
    const Finished done(
        {.source = "test://rain?live=1&frames=150&fps=60&truncate=20&outage=1.6", .stalled_after_s = 0.3});
    EXPECT_GE(done.report.source_faults, 1);
    EXPECT_TRUE(done.report.source_fault->starts_with("no frame for "));
    EXPECT_GE(done.report.why.at("the camera's frame came broken"), 5);
    EXPECT_TRUE(done.recovered());
}

TEST(Faults, ACameraWhoseSizeNeverFittedIsRefused) {
    EXPECT_THROW(Finished({.source = "test://rain?live=1&width=64&height=48"}), Error);
}

TEST(Faults, AFullDiskLosesFramesUnderLatestAndTheStreamGoesOnWhenThereIsRoom) {
    const Finished done({.full = 10, .room = 15});
    EXPECT_EQ(done.report.why.at("the sink failed"), 5);
    EXPECT_TRUE(done.recovered());
}

TEST(Faults, AFullDiskIsToldLessAndLessOftenWithTheFramesLostSoFar) {
    const Finished done({.full = 0, .room = 9});
    ASSERT_EQ(done.told.size(), 4U);
    for (std::size_t index = 0; index < 4; ++index) {
        EXPECT_TRUE(done.told[index].ends_with(" lost, " + std::to_string(1U << index) +
                                               " so far: memory: No space left on device"))
            << done.told[index];
    }
}

TEST(Faults, AFullDiskEndsARunThatMayLoseNothing) {
    EXPECT_THROW(Finished({.source = "test://rain?frames=20", .full = 5, .room = 6}), WriteError);
}

TEST(Faults, AStopEndsAnEndlessCameraAndKeepsWhatWasPresented) {
    const auto end_ns = monotonic_ns() + second_ns / 2;
    const Finished done(
        {.source = "test://rain?live=1&frames=1000000&fps=60", .stop = [end_ns] { return monotonic_ns() > end_ns; }});
    EXPECT_GE(done.report.presented, 1);
    EXPECT_LT(done.report.presented, 1000);
}

TEST(Faults, AStopLeavesAnEngineThatHangsBehindAndIsAskedForNoMore) {
    auto engine = testing::opened(std::make_shared<testing::HangingEngine>());
    const auto source = std::make_shared<testing::MemorySource>(testing::noise(2), 1000);
    testing::CountingSink sink;
    std::vector<std::string> told;
    int stops = 0;  // a stop closes the queue, which wakes the loop: one each time around would never let it sleep
    const auto report = run(engine, source, sink,
                            {.patience_s = 0.3,
                             .tell = [&](std::string_view line) { told.emplace_back(line); },
                             .stop =
                                 [&] {
                                     stops += engine->hangs() ? 1 : 0;
                                     return stops > 0;
                                 }});
    EXPECT_TRUE(engine->hangs());
    EXPECT_EQ(stops, 1);
    EXPECT_EQ(told, std::vector<std::string>{"the engine does not come back: it is left behind"});
    EXPECT_EQ(report.frames, 0);
    testing::HangingEngine::let_go(std::exchange(engine, nullptr));
}

TEST(Faults, WhatASinkHasToSayIsTold) {
    class Warning final : public Sink {
       public:
        Warning() : Sink("memory", testing::make_spec("clean")) {}

       private:
        void put(std::span<const std::byte>, std::int64_t, bool) override {
            if (written() == 1) {
                warn("memory: nearly full");
            }
        }
    } sink;
    std::vector<std::string> told;
    const auto source = std::make_shared<testing::MemorySource>(testing::noise(4), 1000);
    run(testing::opened(std::make_shared<testing::ScriptedEngine>()), source, sink,
        {.tell = [&](std::string_view line) { told.emplace_back(line); }});
    EXPECT_EQ(told, std::vector<std::string>{"memory: nearly full"});
}

TEST(Faults, AStopEndsAFileToo) {
    const Finished done({.source = "test://rain?frames=100000", .stop = [] { return true; }});
    EXPECT_LT(done.report.frames, 100);
}

TEST(Faults, ARawFrameIsTurnedIntoThePixelsOfTheOutput) {
    const auto input = testing::make_spec();
    const auto output = testing::make_spec("clean", Pixels::rgb8);
    const auto picture = testing::noise(1).front();
    const auto converted = between(input, output)(picture);
    EXPECT_EQ(converted.bytes()[0], picture.bytes()[2]);
    EXPECT_EQ(converted.bytes()[1], picture.bytes()[1]);
    EXPECT_EQ(between(input, testing::make_spec("clean"))(picture), picture);
}

}  // namespace
}  // namespace derain
