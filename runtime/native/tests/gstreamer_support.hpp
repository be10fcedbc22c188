/// For tests that run pipelines.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "derain/error.hpp"
#include "gstreamer_source.hpp"
#include "stream_support.hpp"

namespace derain::testing {

/// Skips where GStreamer is, but not its elements: they come in a package of their own.
class Pipelines : public ::testing::Test {
   protected:
    void SetUp() override {
        try {
            make_gstreamer_source("videotestsrc num-buffers=1", make_spec());
        } catch (const Error& error) {
            ASSERT_NE(std::string(error.what()).find("no element"), std::string::npos) << error.what();
            GTEST_SKIP() << "GStreamer without elements: apt-get install gstreamer1.0-plugins-base";
        }
    }
};

}  // namespace derain::testing
