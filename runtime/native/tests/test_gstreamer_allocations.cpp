// Counts every call of operator new in the process while a pipeline's frames are read.

#include <gtest/gtest.h>

#include "counted_new.hpp"
#include "gstreamer_source.hpp"
#include "gstreamer_support.hpp"
#include "stream_support.hpp"

namespace derain {
namespace {

using GstreamerAllocations = testing::Pipelines;

constexpr int warm_up = 50;
constexpr int counted_frames = 200;

TEST_F(GstreamerAllocations, ThereAreNoneAFrameOnceThePipelineRuns) {
    const auto source = make_gstreamer_source(
        "videotestsrc ! video/x-raw,format=BGR,width=32,height=16 ! appsink max-buffers=2 sync=false",
        testing::make_spec());
    long before = 0;
    for (int count = 0; count < warm_up + counted_frames; ++count) {
        if (count == warm_up) {
            before = testing::allocations();
        }
        ASSERT_TRUE(source->next());
    }
    EXPECT_GT(before, 0);
    EXPECT_EQ(testing::allocations() - before, 0);
}

}  // namespace
}  // namespace derain
