#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "bundle_files.hpp"
#include "derain/engine.hpp"

namespace derain::testing {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;

const std::vector<std::byte> frame(make_spec().bytes(), std::byte{7});

TEST(Engine, InfersIntoTheCallersMemory) {
    ScriptedEngine engine;
    engine.open();
    engine.warm_up();
    std::vector<std::byte> clean(frame.size());
    engine.infer(frame, clean);
    EXPECT_EQ(clean, std::vector(frame.size(), std::byte{248}));
}

TEST(Engine, RefusesFramesOfAnotherSizeOnBothSides) {
    ScriptedEngine engine;
    engine.open();
    std::vector<std::byte> clean(frame.size());
    EXPECT_THAT(told([&] { engine.infer(std::span(frame).first(10), clean); }),
                HasSubstr("frame is 10 bytes, expected 1536 (32x16 bgr8)"));
    EXPECT_THAT(told([&] { engine.infer(frame, std::span(clean).first(9)); }),
                HasSubstr("clean is 9 bytes, expected 1536"));
}

TEST(Engine, WorksOnlyWhileItIsOpen) {
    ScriptedEngine engine;
    std::vector<std::byte> clean(frame.size());
    EXPECT_THAT(told([&] { engine.infer(frame, clean); }), HasSubstr("is not open: call open() first"));
    engine.open();
    EXPECT_THAT(told([&] { engine.open(); }), HasSubstr("already open"));
    engine.close();
    engine.close();
    EXPECT_FALSE(engine.is_open());
    EXPECT_THAT(told([&] { engine.warm_up(); }), HasSubstr("is not open"));
}

TEST(Engine, IsNotOpenWhereOpeningFailed) {
    ScriptedEngine engine({}, 0, 1);
    engine.open();
    engine.close();
    EXPECT_THAT(told([&] { engine.open(); }), HasSubstr("no such file"));
    EXPECT_FALSE(engine.is_open());
    engine.open();
    EXPECT_TRUE(engine.is_open());
}

/// Reads its graph when it is opened, as every backend does.
class Reader final : public Engine {
   public:
    using Engine::Engine;

   private:
    void do_open() override { static_cast<void>(bundle().graph(precision())); }
    void do_infer(std::span<const std::byte>, std::span<std::byte>) override {}
    void do_close() override {}
};

TEST(Engine, IsNotReopenedOnAFileThatChangedMeanwhile) {
    const BundleFiles files;
    Reader engine("reader", files.load(), Precision::fp32);
    engine.open();
    engine.close();
    put(files.path() / "graph.fp32.onnx", "the bytes of graph.fp32.onny");
    EXPECT_THAT(told([&] { engine.open(); }),
                AllOf(HasSubstr("graph.fp32.onnx: SHA-256 is "), HasSubstr("the manifest says ")));
    EXPECT_FALSE(engine.is_open());
}

TEST(Registry, MakesWhatWasRegistered) {
    register_engine("scripted", [](const Bundle& bundle, Precision, const EngineOptions&) {
        return std::make_unique<ScriptedEngine>(std::map<int, Fault>{}, 0, 0, bundle);
    });
    EXPECT_THAT(available_engines(), Contains("scripted"));
    EXPECT_THAT(available_engines(), Contains(default_engine()));
    EXPECT_EQ(make_engine("scripted", make_bundle(), Precision::fp32)->name(), "scripted");
}

TEST(Registry, NamesWhatThereIsForAnUnknownName) {
    EXPECT_THAT(told([] { make_engine("abacus", make_bundle(), Precision::fp32); }),
                HasSubstr("engine 'abacus' is unknown, this build has: "));
}

TEST(OpenVino, TellsOfAGraphItCannotLoadInOneLine) {
    if (std::ranges::count(available_engines(), "openvino") == 0) {
        GTEST_SKIP() << "this build has no OpenVINO";
    }
    const BundleFiles files;
    const auto engine = make_engine("openvino", files.load(), Precision::fp32);
    EXPECT_THAT(told([&] { engine->open(); }),
                AllOf(HasSubstr("graph.fp32.onnx: OpenVINO cannot load it: "), Not(HasSubstr("\n"))));
    EXPECT_FALSE(engine->is_open());
}

}  // namespace
}  // namespace derain::testing
