#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "derain/error.hpp"
#include "derain/frame.hpp"

namespace derain {

/// The arithmetic written into a graph.
enum class Precision { fp32, fp16, int8, fp8 };

/// As the manifest spells it: "fp32", "fp16", "int8" or "fp8".
std::string_view to_string(Precision precision);

/// The precision a manifest or a command line names; Error for any other word.
Precision parse_precision(std::string_view word);

/// What was exported. The model's configuration, which only Python can use, is checked to be an object and left there.
struct ModelInfo {
    std::string name;
    std::uint64_t parameters = 0;
    std::string weights = "weights.safetensors";
};

/// The recurrent steps, and one frame's multiply-accumulates in the graph and before the unroller.
struct UnrollInfo {
    std::uint64_t encoder_steps = 0;
    std::uint64_t decoder_steps = 0;
    std::uint64_t macs = 0;
    std::uint64_t macs_naive = 0;
};

/// An ONNX graph and the arithmetic written into it.
struct GraphEntry {
    Precision precision = Precision::fp32;
    std::string file;
};

/// A built engine: for which API and version, for which GPU architecture (several: joined by '+').
struct EngineEntry {
    std::string file;
    Precision precision = Precision::fp32;
    std::string api;
    std::string api_version;
    std::string arch;
};

/// Mean quality of one precision's output on named frames; nothing: not measured, or infinite (identical frames).
struct Quality {
    std::string frames;
    Precision precision = Precision::fp32;
    std::optional<double> psnr_rgb;             ///< dB against the clean frames
    std::optional<double> ssim_rgb;             ///< against the clean frames
    std::optional<double> psnr_vs_fp32;         ///< dB against the FP32 graph
    std::optional<std::uint64_t> max_abs_diff;  ///< grey levels against the FP32 graph
};

/// The identity of one file.
struct FileEntry {
    std::string sha256;  ///< 64 lower-case hexadecimal digits
    std::uint64_t bytes = 0;
};

/// manifest.json, whole and checked: no unknown keys, one graph a precision, the names and the files agree.
struct Manifest {
    std::uint64_t schema_version = 1;
    std::string derain_version;
    ModelInfo model;
    UnrollInfo unroll;
    FrameSpec input;
    FrameSpec output;
    std::vector<GraphEntry> graphs;
    std::vector<EngineEntry> engines;
    std::vector<Quality> quality;
    std::map<std::string, FileEntry> files;

    /// Read and check the text of a manifest; Error with the first fault (a key, the value seen, the value expected).
    static Manifest parse(std::string_view text);
};

/// A bundle on disk whose manifest has been checked; every file is checked before its path is handed out.
///
/// Copies are the same bundle, and threads may share one.
class Bundle {
   public:
    /// Read and check `path`/manifest.json; Error where there is none, or none that this version understands.
    static Bundle load(const std::filesystem::path& path);

    /// The bundle at `path` that `manifest` describes; nothing is read yet.
    Bundle(std::filesystem::path path, Manifest manifest);

    [[nodiscard]] const std::filesystem::path& path() const;
    [[nodiscard]] const Manifest& manifest() const;

    /// The path of a file the manifest names, after checking its size and SHA-256 anew: it may have changed.
    [[nodiscard]] std::filesystem::path file(const std::string& name) const;

    /// The checked ONNX graph of a precision; Error where the bundle has none.
    [[nodiscard]] std::filesystem::path graph(Precision precision) const;

    /// The engines built for an API ("tensorrt", "tensorrt-rtx") in a precision, in the manifest's order.
    [[nodiscard]] std::vector<EngineEntry> engines(Precision precision, std::string_view api) const;

   private:
    struct State;
    std::shared_ptr<State> state_;
};

}  // namespace derain
