#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "bundle_files.hpp"
#include "derain/bundle.hpp"

namespace derain::testing {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using Pointer = json::json_pointer;

TEST(Sha256, AgreesWithThePublishedVector) {  // FIPS 180-2, appendix B.1
    const Folder folder;
    EXPECT_EQ(put(folder.path() / "abc", "abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(Sha256, ReadsFilesLongerThanItsBlock) {  // FIPS 180-2, appendix B.3: a million times the letter a
    const Folder folder;
    EXPECT_EQ(put(folder.path() / "long", std::string(1'000'000, 'a')),
              "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Manifest, IsReadWhole) {
    const BundleFiles files;
    const Bundle bundle = files.load();
    const Manifest& manifest = bundle.manifest();
    EXPECT_EQ(manifest.derain_version, "0.1.0");
    EXPECT_EQ(manifest.model.name, "invert");
    EXPECT_EQ(manifest.input.tensor, "frame");
    EXPECT_EQ(manifest.input.width, 32);
    EXPECT_EQ(manifest.output.pixels, Pixels::bgr8);
    ASSERT_EQ(manifest.engines.size(), 1U);
    EXPECT_EQ(manifest.engines[0].arch, "sm87");
    ASSERT_EQ(manifest.quality.size(), 1U);
    EXPECT_EQ(manifest.quality[0].psnr_rgb, 30.5);
    EXPECT_EQ(manifest.quality[0].ssim_rgb, std::nullopt);
    EXPECT_EQ(manifest.quality[0].max_abs_diff, 1U);
    EXPECT_EQ(manifest.files.at("engine.plan").bytes, 24U);
}

TEST(Manifest, HasDefaultsWhereKeysMayBeLeftOut) {
    BundleFiles files;
    for (const char* key : {"/schema_version", "/input/pixels", "/input/matrix", "/input/range", "/model/weights",
                            "/model/config", "/quality"}) {
        const Pointer pointer(key);
        files.manifest[pointer.parent_pointer()].erase(pointer.back());
    }
    const Bundle bundle = files.load();
    EXPECT_EQ(bundle.manifest().input.pixels, Pixels::bgr8);
    EXPECT_EQ(bundle.manifest().input.matrix, "bt601");
    EXPECT_EQ(bundle.manifest().input.range, "limited");
    EXPECT_EQ(bundle.manifest().model.weights, "weights.safetensors");
}

struct Spoilt {
    std::string key;
    json value;
    std::string told;
};

class ManifestRefuses : public ::testing::TestWithParam<Spoilt> {};

TEST_P(ManifestRefuses, AndSaysWhy) {
    BundleFiles files;
    files.manifest[Pointer(GetParam().key)] = GetParam().value;
    const std::string seen = told([&] { return files.load(); });
    EXPECT_THAT(seen, AllOf(HasSubstr((files.path() / "manifest.json").string() + ": " + GetParam().told),
                            HasSubstr("export it again with `derain export"), Not(HasSubstr("\n"))));
}

const std::string no_hash(63, 'a');

INSTANTIATE_TEST_SUITE_P(
    Every, ManifestRefuses,
    ::testing::Values(
        Spoilt{"/schema_version", 2, "schema_version: should be 1 or less, got 2"},
        Spoilt{"/schema_version", 1.0, "schema_version: should be a whole number, got 1.0"},
        Spoilt{"/surprise", {{"a", 1}}, "surprise: unknown key (its value is {\"a\":1})"},
        Spoilt{"/input/surprise", "x", "input.surprise: unknown key"},
        Spoilt{"/graphs/0/surprise", 1, "graphs.0.surprise: unknown key"},
        Spoilt{"/derain_version", 1, "derain_version: should be a string, got 1"},
        Spoilt{"/model", 3, "model: should be an object, got 3"},
        Spoilt{"/model/parameters", -1, "model.parameters: should be 0 or more, got -1"},
        Spoilt{"/model/parameters", 18446744073709551615U, "model.parameters: should be 9223372036854775807 or less"},
        Spoilt{"/model/config", json::array(), "model.config: should be an object, got []"},
        Spoilt{"/unroll/encoder_steps", 0, "unroll.encoder_steps: should be 1 or more, got 0"},
        Spoilt{"/input/width", 0, "input.width: should be 1 or more, got 0"},
        Spoilt{"/input/width", 65536, "input.width: should be 65535 or less, got 65536"},
        Spoilt{"/input/width", "32", "input.width: should be a whole number, got \"32\""},
        Spoilt{"/input/pixels", "yuyv", "input.pixels: 'yuyv' is unknown, known are: bgr8, rgb8, nv12, uyvy"},
        Spoilt{"/input/matrix", "bt2020", "input.matrix: should be 'bt601' or 'bt709', got \"bt2020\""},
        Spoilt{"/output/range", "wide", "output.range: should be 'full' or 'limited', got \"wide\""},
        Spoilt{"/input",
               {{"tensor", "frame"}, {"width", 31}, {"height", 16}, {"pixels", "uyvy"}},
               "input.width: should be even for uyvy, got 31"},
        Spoilt{"/input",
               {{"tensor", "frame"}, {"width", 32}, {"height", 15}, {"pixels", "nv12"}},
               "input.height: should be even for nv12, got 15"},
        Spoilt{"/graphs", {{"a", 1}}, "graphs: should be an array, got {\"a\":1}"},
        Spoilt{"/graphs/0/precision", "fp64",
               "graphs.0.precision: 'fp64' is unknown, known are: fp32, fp16, int8, fp8"},
        Spoilt{"/graphs/0/file", "../graph",
               "graphs.0.file: should be a file's name without folders, got \"../graph\""},
        Spoilt{"/graphs/0/file", "", "graphs.0.file: should be a file's name without folders, got \"\""},
        Spoilt{"/graphs/0/file", "other.onnx", "files: no entry for other.onnx, which the manifest names"},
        Spoilt{"/graphs/1",
               {{"precision", "fp32"}, {"file", "engine.plan"}},
               "graphs: one graph a precision expected, got two in fp32"},
        Spoilt{"/engines/0/options", 1, "engines.0.options: should be an object, got 1"},
        Spoilt{"/engines/0/api", nullptr, "engines.0.api: should be a string, got null"},
        Spoilt{"/quality/0/psnr_rgb", "high", "quality.0.psnr_rgb: should be a number, got \"high\""},
        Spoilt{"/quality/0/max_abs_diff", 0.5, "quality.0.max_abs_diff: should be a whole number, got 0.5"},
        Spoilt{"/files", json::array(), "files: should be an object, got []"},
        Spoilt{"/files/engine.plan/sha256", no_hash, "files.engine.plan.sha256: should be 64 lower-case hexadecimal"},
        Spoilt{"/files/engine.plan/bytes", nullptr, "files.engine.plan.bytes: should be a whole number, got null"},
        Spoilt{"/files/.hidden",
               {{"sha256", std::string(64, 'a')}, {"bytes", 0}},
               "files: should be a file's name without folders, got \".hidden\""},
        Spoilt{"/files/extra",
               {{"sha256", std::string(64, 'a')}, {"bytes", 0}},
               "files: extra is listed, but no model, graph or engine names it"}));

class ManifestNeeds : public ::testing::TestWithParam<std::string> {};

TEST_P(ManifestNeeds, TheKey) {
    BundleFiles files;
    const Pointer pointer(GetParam());
    files.manifest[pointer.parent_pointer()].erase(pointer.back());
    EXPECT_THAT(told([&] { return files.load(); }), HasSubstr(pointer.back() + ": missing, expected a value"));
}

INSTANTIATE_TEST_SUITE_P(Every, ManifestNeeds,
                         ::testing::Values("/derain_version", "/model", "/model/name", "/unroll", "/unroll/macs",
                                           "/input", "/input/tensor", "/input/height", "/output", "/graphs",
                                           "/graphs/0/precision", "/engines/0/arch", "/files",
                                           "/files/engine.plan/sha256"));

TEST(Manifest, RefusesWhatIsNotJson) {
    const BundleFiles files;
    const std::string marked = "\xEF\xBB\xBF" + files.manifest.dump();
    for (const std::string& text : {std::string(), std::string("{"), std::string("[]"), std::string("\xff"),
                                    std::string(R"({"a": 1e999})"), marked}) {
        put(files.path() / "manifest.json", text);
        EXPECT_THAT(told([&] { return Bundle::load(files.path()); }),
                    AllOf(HasSubstr("manifest.json: "), Not(HasSubstr("\n"))))
            << text;
    }
}

TEST(Manifest, RefusesWhatIsNestedTooDeep) {
    const BundleFiles files;
    const std::string unclosed(200'000, '[');
    const std::string whole = unclosed + std::string(200'000, ']');
    std::string inside = R"({"surprise": )";
    inside.append(whole).append("}");
    for (const std::string& text : {inside, whole, unclosed}) {
        put(files.path() / "manifest.json", text);
        EXPECT_THAT(told([&] { return Bundle::load(files.path()); }),
                    AllOf(HasSubstr("manifest.json: nested more than 100 deep, expected a manifest: export it again"),
                          Not(HasSubstr("\n"))));
    }
}

TEST(Manifest, IsRefusedInOneLineWhateverIsInIt) {
    BundleFiles files;
    files.manifest["line\nbreak"] = 1;
    EXPECT_THAT(told([&] { return files.load(); }), HasSubstr("line break: unknown key"));
}

TEST(Bundle, RefusesAFolderWithoutAManifestAndOneThatIsNotThere) {
    const Folder folder;
    EXPECT_THAT(told([&] { return Bundle::load(folder.path()); }),
                HasSubstr("has no manifest.json, so it is no bundle"));
    EXPECT_THAT(told([&] { return Bundle::load(folder.path() / "none"); }), HasSubstr("no such bundle"));
}

TEST(Bundle, TellsOfLinksInACircleInOneLine) {
    const BundleFiles files;
    const Bundle bundle = files.load();
    std::filesystem::create_symlink("circle", files.path() / "circle");
    EXPECT_THAT(told([&] { return Bundle::load(files.path() / "circle"); }),
                AllOf(HasSubstr("circle/manifest.json: cannot be read ("), HasSubstr("see its permissions and links"),
                      Not(HasSubstr("\n"))));
    std::filesystem::remove(files.path() / "engine.plan");
    std::filesystem::create_symlink("engine.plan", files.path() / "engine.plan");
    EXPECT_THAT(told([&] { return bundle.file("engine.plan"); }), HasSubstr("engine.plan: cannot be read ("));
}

TEST(Bundle, HandsOutTheGraphWhoseBytesAreRight) {
    const BundleFiles files;
    EXPECT_EQ(files.load().graph(Precision::fp32), files.path() / "graph.fp32.onnx");
}

TEST(Bundle, RefusesAFileOfAnotherSize) {
    const BundleFiles files;
    const Bundle bundle = files.load();
    put(files.path() / "graph.fp32.onnx", "short");
    EXPECT_THAT(told([&] { return bundle.graph(Precision::fp32); }), HasSubstr("5 bytes, the manifest says 28"));
}

TEST(Bundle, RefusesAFileWithOneBitChanged) {
    const BundleFiles files;
    const Bundle bundle = files.load();
    put(files.path() / "graph.fp32.onnx", "the bytes of graph.fp32.onny");
    EXPECT_THAT(told([&] { return bundle.graph(Precision::fp32); }),
                AllOf(HasSubstr("SHA-256 is "), HasSubstr("the manifest says ")));
}

TEST(Bundle, RefusesAFileThatIsGoneAndOneItDoesNotName) {
    const BundleFiles files;
    const Bundle bundle = files.load();
    std::filesystem::remove(files.path() / "engine.plan");
    EXPECT_THAT(told([&] { return bundle.file("engine.plan"); }), HasSubstr("missing, though the manifest names it"));
    EXPECT_THAT(told([&] { return bundle.file("passwd"); }),
                HasSubstr("not in the manifest, which names engine.plan, "));
}

TEST(Bundle, NamesTheVerbThatMakesAMissingGraph) {
    const BundleFiles files;
    const Bundle bundle = files.load();
    EXPECT_THAT(told([&] { return bundle.graph(Precision::int8); }),
                AllOf(HasSubstr("no int8 graph, the bundle has fp32"), HasSubstr("derain calibrate"),
                      HasSubstr("--precision int8")));
    EXPECT_THAT(told([&] { return bundle.graph(Precision::fp16); }),
                AllOf(HasSubstr("derain calibrate"), HasSubstr("--precision fp16")));
    EXPECT_THAT(told([&] { return Bundle(files.path(), {}).graph(Precision::fp32); }),
                HasSubstr("no fp32 graph, the bundle has none: make one with `derain export ...`"));
}

TEST(Bundle, FindsEnginesByPrecisionAndApi) {
    const BundleFiles files;
    const Bundle bundle = files.load();
    EXPECT_EQ(bundle.engines(Precision::fp32, "tensorrt").size(), 1U);
    EXPECT_TRUE(bundle.engines(Precision::fp32, "tensorrt-rtx").empty());
    EXPECT_TRUE(bundle.engines(Precision::fp16, "tensorrt").empty());
}

TEST(FrameSpec, GivesTheShapeAndTheSizeOfEachFormat) {
    FrameSpec spec{.tensor = "frame", .width = 8, .height = 4};
    const auto is = [&](Pixels pixels, const std::vector<std::int64_t>& shape, std::size_t bytes) {
        spec.pixels = pixels;
        EXPECT_EQ(spec.shape(), shape);
        EXPECT_EQ(spec.bytes(), bytes);
        EXPECT_EQ(parse_pixels(to_string(pixels)), pixels);
    };
    is(Pixels::bgr8, {1, 4, 8, 3}, 96);
    is(Pixels::rgb8, {1, 4, 8, 3}, 96);
    is(Pixels::nv12, {1, 6, 8}, 48);
    is(Pixels::uyvy, {1, 4, 8, 2}, 64);
}

}  // namespace
}  // namespace derain::testing
