/// `derain-stream`: the native runtime on a stream, with the URIs, flags and JSON of `derain run` and `derain bench`.
///
/// A fault ends in one line, "error: …", and exit status 1. Wrong usage exits 2.
#include <csignal>
#include <cstdlib>
#include <iostream>
#include <opencv2/core/utils/logger.hpp>
#include <string>

#include "commands.hpp"
#include "derain/error.hpp"

namespace {

/// Keeps FFmpeg's and OpenCV's own lines off stderr: they would drown the one line an error is told in.
///
/// To be called while there is one thread.
void quiet_decoders() {
    ::setenv("OPENCV_FFMPEG_LOGLEVEL", "-8", 0);       // NOLINT(concurrency-mt-unsafe)
    if (std::getenv("OPENCV_LOG_LEVEL") == nullptr) {  // NOLINT(concurrency-mt-unsafe): OpenCV has read it by now
        cv::utils::logging::setLogLevel(cv::utils::logging::LOG_LEVEL_SILENT);
    }
}

}  // namespace

int main(int count, char** arguments) {
    quiet_decoders();
    static_cast<void>(std::signal(SIGPIPE, SIG_IGN));  // whoever stops reading the output ends neither clip nor report
    try {
        CLI::App app("Takes rain streaks and raindrops off camera frames, on a stream.", "derain-stream");
        app.require_subcommand(1);
        derain::add_run(app);
        derain::add_bench(app);
        try {
            app.parse(count, arguments);
        } catch (const CLI::ParseError& error) {
            return app.exit(error) == 0 ? 0 : 2;
        }
    } catch (...) {
        const derain::Error told(derain::what_was_caught());  // in one line, whatever it was
        std::cerr << "error: " << told.what() << '\n';
        return 1;
    }
    return 0;
}
