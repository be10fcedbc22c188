// Counts every call of operator new in the process, on whatever thread, while frames go from a source through an engine
// that allocates nothing into a sink.

#include <gtest/gtest.h>

#include "counted_new.hpp"
#include "stream_support.hpp"

namespace derain {
namespace {

constexpr std::int64_t warm_up = 200;
constexpr std::int64_t counted_frames = 1000;

class Allocations : public ::testing::TestWithParam<Policy> {};

TEST_P(Allocations, ThereAreNoneAFrameOnceTheStreamRuns) {
    const bool camera = GetParam() == Policy::latest;
    const auto source = std::make_shared<testing::MemorySource>(testing::noise(8), warm_up + counted_frames + 1,
                                                                testing::make_spec(), camera ? 1000 : 0);
    testing::CountingSink sink;
    long before = 0;
    long after = 0;
    const auto report = run(testing::opened(std::make_shared<testing::ScriptedEngine>()), source, sink,
                            {.policy = GetParam(),
                             .deadline_ms = 10'000,
                             .on_frame =
                                 [&](const FrameRecord& record, const Frame&, const Picture&) {
                                     if (record.id <= warm_up) {
                                         before = testing::allocations();
                                     }
                                     after = testing::allocations();
                                 },
                             .on_status = [](const Status& status) { EXPECT_EQ(status.source, "open"); }});
    EXPECT_GE(report.presented, counted_frames / 2);
    EXPECT_GT(before, 0);
    EXPECT_EQ(after - before, 0);
}

INSTANTIATE_TEST_SUITE_P(Stream, Allocations, ::testing::Values(Policy::latest, Policy::every));

}  // namespace
}  // namespace derain
