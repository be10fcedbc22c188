// Counts every call of operator new in the process, on whatever thread, while frames run through the C interface on an
// engine that allocates nothing: what is counted is the library's own, from submission to reception. What OpenVINO or
// TensorRT allocate inside an inference is theirs.

#include <gtest/gtest.h>

#include <vector>

#include "bundle_files.hpp"
#include "counted_new.hpp"
#include "derain/derain.h"

namespace derain::testing {
namespace {

class Copies final : public Engine {
   public:
    using Engine::Engine;

   private:
    void do_open() override {}
    void do_infer(std::span<const std::byte> frame, std::span<std::byte> clean) override {
        std::ranges::copy(frame, clean.begin());
    }
    void do_close() override {}
};

class Allocations : public ::testing::TestWithParam<std::int32_t> {};

TEST_P(Allocations, AreNoneAFrameOnceTheStreamRuns) {
    const BundleFiles files;
    static_cast<void>(files.load());
    register_engine("copies", [](const Bundle& bundle, Precision precision, const EngineOptions&) {
        return std::make_unique<Copies>("copies", bundle, precision);
    });
    const std::string path = files.path().string();
    const derain_options options{.struct_size = sizeof options,
                                 .bundle = path.c_str(),
                                 .engine = "copies",
                                 .precision = "fp32",
                                 .policy = GetParam(),
                                 .deadline_ms = 60'000};
    derain_stream* stream = nullptr;
    const long closed = allocations();
    ASSERT_EQ(derain_open(&options, &stream), DERAIN_OK) << derain_error();
    EXPECT_GT(allocations(), closed) << "the library's allocations are not counted";
    std::vector<unsigned char> bytes(make_spec().bytes());
    derain_frame frame{.struct_size = sizeof frame};
    const auto pass = [&](int frames) {
        for (int index = 0; index < frames; ++index) {
            bytes.front() = static_cast<unsigned char>(index);  // a picture that does not change is a fault
            ASSERT_EQ(derain_submit(stream, bytes.data(), bytes.size(), 0, -1, nullptr), DERAIN_OK);
            ASSERT_EQ(derain_receive(stream, 10'000, &frame), DERAIN_OK);
            ASSERT_EQ(frame.derained, 1) << frame.why;
        }
    };
    pass(100);
    const long before = allocations();
    pass(1000);
    EXPECT_EQ(allocations() - before, 0);
    derain_close(stream);
}

INSTANTIATE_TEST_SUITE_P(Each, Allocations, ::testing::Values<std::int32_t>(DERAIN_EVERY, DERAIN_LATEST));

}  // namespace
}  // namespace derain::testing
