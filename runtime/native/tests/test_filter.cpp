#include <gtest/gtest.h>

#include <utility>

#include "derain/stream/filter.hpp"
#include "stream_support.hpp"

namespace derain {
namespace {

using testing::Fault;
using testing::ScriptedEngine;

std::shared_ptr<Engine> engine(std::map<int, Fault> script, int slow_ms = 200) {
    return testing::opened(std::make_shared<ScriptedEngine>(std::move(script), slow_ms));
}

const ToOutput same = [](const Picture& picture) { return picture; };

TEST(Filter, EachFrameComesBackCleanOrAsItCameWithTheReason) {
    Filter filter(engine({{1, Fault::raise}}), std::nullopt, same);
    const auto pictures = testing::noise(4);
    std::vector<std::optional<Why>> why;
    for (const auto& picture : pictures) {
        const auto shown = filter.process(picture, monotonic_ns());
        why.push_back(shown.why);
        EXPECT_EQ(shown.picture == picture, shown.why.has_value());
        EXPECT_EQ(shown.picture.bytes()[0], shown.why ? picture.bytes()[0] : ~picture.bytes()[0]);
    }
    EXPECT_EQ(why[0], std::nullopt);
    EXPECT_EQ(why[1], Why::fault);
    EXPECT_EQ(why[2], Why::away);
    EXPECT_EQ(filter.statistics([](const Tally& tally) { return tally.presented(); }), 4);
}

TEST(Filter, ALateEngineIsNotWaitedForLongerThanTheDeadline) {
    Filter filter(engine({{0, Fault::slow}}, 600), 50, same);
    const auto picture = testing::noise(1).front();
    const auto start_ns = monotonic_ns();
    EXPECT_EQ(filter.process(picture, start_ns).why, Why::deadline);
    EXPECT_EQ(filter.process(picture, monotonic_ns()).why, Why::late);
    EXPECT_LT(monotonic_ns() - start_ns, 500 * testing::ms_ns);
    std::this_thread::sleep_for(std::chrono::milliseconds(700));
    EXPECT_EQ(filter.process(picture, monotonic_ns()).why, std::nullopt);
}

TEST(Filter, AStopWaitsForNoEngineWhereThereIsNoDeadline) {
    Filter filter(engine({{0, Fault::slow}}, 1500), std::nullopt, same);
    const auto pictures = testing::noise(3);
    const auto start_ns = monotonic_ns();
    std::jthread stopper([&filter] {
        std::this_thread::sleep_for(std::chrono::milliseconds(200));
        filter.stop();
    });
    const auto left = filter.process(pictures[0], start_ns);
    EXPECT_EQ(left.why, Why::deadline);
    EXPECT_EQ(left.picture, pictures[0]);
    EXPECT_EQ(filter.process(pictures[1], monotonic_ns()).why, Why::late);
    EXPECT_LT(monotonic_ns() - start_ns, 1000 * testing::ms_ns);
    std::this_thread::sleep_for(std::chrono::milliseconds(1600));
    filter.go_on();
    const auto clean = filter.process(pictures[2], monotonic_ns());
    EXPECT_EQ(clean.why, std::nullopt);
    EXPECT_EQ(clean.picture.bytes()[0], ~pictures[2].bytes()[0]);
    const auto [presented, missed] =
        filter.statistics([](const Tally& tally) { return std::pair(tally.presented(), tally.deadline_misses()); });
    EXPECT_EQ(presented, 1);  // the two before it were for nobody
    EXPECT_EQ(missed, 0);
}

TEST(Filter, AFrameAfterAStopWaitsForTheEngineAgainWhereThereIsNoDeadline) {
    Filter filter(engine({{0, Fault::slow}}, 600), std::nullopt, same);
    const auto pictures = testing::noise(2);
    std::jthread stopper([&filter] {
        std::this_thread::sleep_for(std::chrono::milliseconds(100));
        filter.stop();
    });
    EXPECT_EQ(filter.process(pictures[0], monotonic_ns()).why, Why::deadline);
    filter.go_on();
    const auto clean = filter.process(pictures[1], monotonic_ns());
    EXPECT_EQ(clean.why, std::nullopt);
    EXPECT_EQ(clean.picture.bytes()[0], ~pictures[1].bytes()[0]);
}

}  // namespace
}  // namespace derain
