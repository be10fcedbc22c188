/// A bundle on disk for tests: files of a few bytes, and a manifest that can be spoilt before it is written.
#pragma once

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "derain/bundle.hpp"
#include "sha256.hpp"
#include "stream_support.hpp"

namespace derain::testing {

/// The message of the Error that `work` throws; empty where it throws none.
template <typename Work>
std::string told(Work work) {
    try {
        static_cast<void>(work());
    } catch (const Error& error) {
        return error.what();
    }
    return {};
}

inline std::string put(const std::filesystem::path& path, const std::string& text) {
    std::ofstream(path, std::ios::binary) << text;
    return sha256_of(path);
}

/// A folder with a graph, weights and a TensorRT plan, and `manifest`, which describes them.
class BundleFiles {
   public:
    BundleFiles() {
        manifest = nlohmann::json::parse(R"({
            "schema_version": 1, "derain_version": "0.1.0",
            "model": {"name": "invert", "parameters": 0, "weights": "weights.safetensors", "config": {"any": [1]}},
            "unroll": {"encoder_steps": 1, "decoder_steps": 1, "macs": 0, "macs_naive": 0},
            "input": {"tensor": "frame", "width": 32, "height": 16, "pixels": "bgr8", "matrix": "bt601", "range": "limited"},
            "output": {"tensor": "clean", "width": 32, "height": 16, "pixels": "bgr8", "matrix": "bt601", "range": "limited"},
            "graphs": [{"precision": "fp32", "file": "graph.fp32.onnx"}],
            "engines": [{"file": "engine.plan", "precision": "fp32", "api": "tensorrt", "api_version": "10.3.0.30",
                         "arch": "sm87", "options": {"tf32": false}}],
            "quality": [{"frames": "noise", "precision": "fp32", "psnr_rgb": 30.5, "ssim_rgb": null, "max_abs_diff": 1}],
            "files": {}})");
        for (const char* name : {"weights.safetensors", "graph.fp32.onnx", "engine.plan"}) {
            const std::string text = std::string("the bytes of ") + name;
            manifest["files"][name] = {{"sha256", put(path() / name, text)}, {"bytes", text.size()}};
        }
    }

    [[nodiscard]] const std::filesystem::path& path() const { return folder_.path(); }

    /// Writes the manifest and reads the bundle.
    [[nodiscard]] Bundle load() const {
        put(path() / "manifest.json", manifest.dump());
        return Bundle::load(path());
    }

    nlohmann::json manifest;

   private:
    Folder folder_;
};

}  // namespace derain::testing
