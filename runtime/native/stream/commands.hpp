/// The verbs of `derain-stream`; each fills in its part of the command line and returns what runs it.
#pragma once

#include <CLI/CLI.hpp>

namespace derain {

/// `derain-stream run`, with the flags of `derain run`.
void add_run(CLI::App& app);
/// `derain-stream bench`, with the flags of `derain bench` that measure.
void add_bench(CLI::App& app);

}  // namespace derain
