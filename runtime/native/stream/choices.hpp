/// What both verbs ask for.
#pragma once

#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>
#include <string>

#include "derain/engine.hpp"

namespace derain {

/// The bundle and the engine for it.
struct EngineChoice {
    std::string bundle;
    std::string engine;
    std::string precision = "fp32";

    /// Adds BUNDLE, --engine and --precision to a verb.
    void add_to(CLI::App& verb);
    /// Opened and warmed up.
    [[nodiscard]] std::shared_ptr<Engine> open(const Bundle& loaded) const;
};

/// Writes a report by atomic rename.
void write_report(const std::filesystem::path& path, const std::string& json);

}  // namespace derain
