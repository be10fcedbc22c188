#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <map>
#include <stdexcept>
#include <tuple>

#include "derain/stream/clock.hpp"
#include "derain/stream/guard.hpp"

namespace derain {
namespace {

using enum State;

constexpr std::array states{deraining, late, backing_off, State::reopening, raw};
constexpr std::array events{Event::result, Event::deadline, Event::fault, Event::spent, Event::due, Event::opened};

/// The table of guard.hpp and of Python's runtime/guard.py.
const std::map<std::pair<State, Event>, State> table{
    {{deraining, Event::result}, deraining},
    {{deraining, Event::deadline}, late},
    {{deraining, Event::fault}, backing_off},
    {{deraining, Event::spent}, raw},
    {{late, Event::result}, deraining},
    {{late, Event::fault}, backing_off},
    {{late, Event::spent}, raw},
    {{backing_off, Event::due}, State::reopening},
    {{State::reopening, Event::opened}, deraining},
    {{State::reopening, Event::fault}, backing_off},
    {{State::reopening, Event::spent}, raw},
};

/// A guard led into `state` by the table's own rows; `most` is how many reopenings its back-off allows in all.
Guard in_state(State state, std::size_t most) {
    Guard guard(std::nullopt, nullptr, BackOff(most));
    if (state == late) {
        guard.on(Event::deadline, 0);
    } else if (state != deraining) {
        guard.on(Event::fault, 0, "before");
    }
    if (state == State::reopening) {
        guard.on(Event::due, 0);
    }
    return guard;
}

class EveryPair : public ::testing::TestWithParam<std::tuple<State, Event>> {};

TEST_P(EveryPair, DoesWhatTheTableSaysOrIsRefused) {
    const auto [state, event] = GetParam();
    // Backing off and reopening cost a reopening themselves; in `raw` none is left whatever comes.
    const std::size_t spent = state == backing_off || state == State::reopening ? 1 : 0;
    Guard guard = in_state(state, state == raw ? 0 : spent + (event == Event::spent ? 0 : 1));
    ASSERT_EQ(guard.state(), state);
    const Event given = event == Event::spent ? Event::fault : event;
    if (const auto row = table.find({state, event}); row != table.end()) {
        guard.on(given, 0, "why");
        EXPECT_EQ(guard.state(), row->second);
        EXPECT_EQ(guard.due_ns().has_value(), row->second == backing_off);
    } else {
        EXPECT_THROW(guard.on(given, 0, "why"), std::logic_error);
        EXPECT_FALSE(next_state(state, event));
    }
}

INSTANTIATE_TEST_SUITE_P(Guard, EveryPair,
                         ::testing::Combine(::testing::ValuesIn(states), ::testing::ValuesIn(events)));

TEST(Guard, FiveReopeningsAMinuteWithGrowingDelaysThenRawFramesForGood) {
    std::vector<std::string> told;
    Guard guard(std::nullopt, [&told](std::string_view line) { told.emplace_back(line); });
    std::int64_t now_ns = 0;
    for (const std::int64_t delay_ms : {100, 200, 400, 800, 1600}) {
        guard.on(Event::fault, now_ns, "boom");
        EXPECT_EQ(guard.state(), backing_off);
        EXPECT_EQ(*guard.due_ns() - now_ns, delay_ms * 1'000'000);
        now_ns = *guard.due_ns();
        guard.on(Event::due, now_ns);
        EXPECT_FALSE(guard.due_ns());
        guard.on(Event::opened, now_ns);
    }
    guard.on(Event::fault, now_ns, "boom");
    EXPECT_EQ(guard.state(), raw);
    EXPECT_EQ(guard.faults(), 6);
    EXPECT_EQ(guard.reopened(), 5);
    EXPECT_EQ(guard.fault(), "boom");
    ASSERT_EQ(told.size(), 11U);
    EXPECT_EQ(told.front(), "engine fault: boom: raw frames; the engine is reopened in 0.1 s");
    EXPECT_EQ(told[1], "the engine is open again");
    EXPECT_EQ(told.back(), "engine fault: boom: reopened 5 times within a minute, raw frames from now on");
}

TEST(Guard, FaultsThatAreRareNeverExhaustTheReopenings) {
    Guard guard;
    for (std::int64_t minute = 0; minute < 100; ++minute) {
        const auto now_ns = minute * 61 * second_ns;
        guard.on(Event::fault, now_ns, "boom");
        ASSERT_EQ(*guard.due_ns() - now_ns, second_ns / 10);
        guard.on(Event::due, *guard.due_ns());
        guard.on(Event::opened, now_ns + second_ns);
    }
    EXPECT_EQ(guard.reopened(), 100);
}

TEST(Guard, ABackOffWithoutALimitSettlesAtItsLongestDelay) {
    BackOff back_off;
    std::int64_t now_ns = 0;
    std::vector<double> delays;
    for (int attempt = 0; attempt < 40; ++attempt) {
        delays.push_back(*back_off.next_s(now_ns));
        now_ns += static_cast<std::int64_t>(delays.back() * 1e9);
    }
    EXPECT_DOUBLE_EQ(delays[0], 0.1);
    EXPECT_DOUBLE_EQ(delays[3], 0.8);
    EXPECT_DOUBLE_EQ(delays.back(), 5);
    EXPECT_DOUBLE_EQ(*std::ranges::max_element(delays), 5);
}

TEST(Guard, ADeadlineCountsFromTheCaptureAndWithoutOneNothingIsOverdue) {
    const Guard guard(10);
    EXPECT_EQ(guard.deadline(100), 110);
    EXPECT_FALSE(guard.overdue(100, 110));
    EXPECT_TRUE(guard.overdue(100, 111));
    EXPECT_FALSE(Guard().deadline(100));
    EXPECT_FALSE(Guard().overdue(0, 1'000'000'000'000));
}

TEST(Guard, ADeadlineThatNobodyLivesToSeeIsNeverMissed) {
    EXPECT_EQ(deadline_in_ns(std::nullopt), std::nullopt);
    EXPECT_EQ(deadline_in_ns(0.5), 500'000);
    for (const double ms : {1e9, 1e13, 1e300, std::numeric_limits<double>::infinity()}) {
        EXPECT_FALSE(Guard(deadline_in_ns(ms)).overdue(1'000'000 * second_ns, 1'000'001 * second_ns)) << ms;
    }
}

}  // namespace
}  // namespace derain
