/// What both verbs ask for.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <optional>
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

/// Adds --deadline to a verb: milliseconds, more than 0; infinite for none.
void add_deadline(CLI::App& verb, std::optional<double>& ms, const std::string& what);

}  // namespace derain
