#include <atomic>
#include <cmath>
#include <csignal>
#include <ctime>
#include <iomanip>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>

#include "choices.hpp"
#include "commands.hpp"
#include "derain/stream/clock.hpp"
#include "derain/stream/redact.hpp"
#include "derain/stream/streams.hpp"
#include "report_file.hpp"
#include "show.hpp"
#include "truth.hpp"

namespace derain {

namespace {

// For live sources, unless given: a picture that old is a frozen one to a driver.
constexpr double live_deadline_ms = 500;

// NOLINTNEXTLINE(cppcoreguidelines-avoid-non-const-global-variables): a signal's handler reaches nothing else
std::atomic<std::int64_t> stopped_ns = 0;
static_assert(std::atomic<std::int64_t>::is_always_lock_free, "a signal's handler may set nothing else");

// A terminal and a supervisor may both signal one stop; a person who insists takes longer.
constexpr std::int64_t insists_after_ns = second_ns;

/// The first stops the stream, one that comes a second later ends the process.
void on_signal(int signal) {
    timespec now{};
    ::clock_gettime(CLOCK_MONOTONIC, &now);
    const auto now_ns = now.tv_sec * second_ns + now.tv_nsec;
    std::int64_t first_ns = 0;
    if (!stopped_ns.compare_exchange_strong(first_ns, now_ns) && now_ns - first_ns >= insists_after_ns) {
        static_cast<void>(std::signal(signal, SIG_DFL));
        static_cast<void>(std::raise(signal));
    }
}

/// Lets SIGINT (Ctrl-C) and SIGTERM end a stream as if its source had.
void stop_on_signals() {
    for (const int signal : {SIGINT, SIGTERM}) {
        static_cast<void>(std::signal(signal, on_signal));
    }
}

struct RunChoice {
    EngineChoice engine;
    std::string source, sink, policy, truth, json;
    std::optional<double> deadline_ms;
};

std::unique_ptr<TruthComparison> comparison_with(const RunChoice& choice, Policy policy, const Manifest& manifest) {
    if (choice.truth.empty()) {
        return nullptr;
    }
    if (policy == Policy::latest) {
        throw Error("--truth " + redact(choice.truth) +
                    ": compares frame by frame, and latest may drop some: add --policy every");
    }
    FrameSpec bgr = manifest.output;
    bgr.pixels = Pixels::bgr8;
    return std::make_unique<TruthComparison>(open_source(choice.truth, bgr), manifest.input, manifest.output);
}

/// As given, else that of live sources; none where it is infinite.
std::optional<double> deadline_ms(const RunChoice& choice, bool live) {
    const auto ms = choice.deadline_ms || !live ? choice.deadline_ms : std::optional(live_deadline_ms);
    return ms && std::isfinite(*ms) ? ms : std::nullopt;
}

/// Shows a report and writes it to the file that was named, which may fail.
void conclude(const RunChoice& choice, const RunReport& report, const nlohmann::ordered_json& document) {
    summarise(report, redact(choice.sink));
    if (document.contains("psnr_rgb")) {
        const auto told = [&document](const char* which) {
            const auto& value = document["psnr_rgb"][which];
            if (value.is_null()) {
                return std::string("identical");
            }
            std::ostringstream rounded;
            rounded << std::fixed << std::setprecision(2) << value.get<double>() << " dB";
            return rounded.str();
        };
        std::cout << "PSNR (RGB) against the truth: input " << told("input") << ", output " << told("output") << "\n";
    }
    write_report(choice.json, document, 2);
}

/// Shows and writes what was measured until an error ended the run: it is not lost with what came after.
void conclude_early(const RunChoice& choice, const RunReport& report, Sink& sink) {
    if (report.frames == 0) {
        return;
    }
    try {
        sink.close();
    } catch (const Error&) {  // the error that ended the run is told; this one came of it, or is it
    }
    try {
        conclude(choice, report, report);
    } catch (const Error& error) {  // such as the full disk that ended the run
        std::cerr << std::string("the report is lost: ") + error.what() + "\n";
    }
}

void derain_stream(const RunChoice& choice) {
    check_report(choice.json);
    const Bundle bundle = Bundle::load(choice.engine.bundle);
    const auto& manifest = bundle.manifest();
    stop_on_signals();
    // Before the source: what a network camera sends meanwhile would wait in buffers, and every frame be that old.
    const auto engine = choice.engine.open(bundle);
    const std::shared_ptr<Source> source = open_source(choice.source, manifest.input);
    const auto policy = parse_policy(choice.policy).value_or(source->live() ? Policy::latest : Policy::every);
    const auto comparison = comparison_with(choice, policy, manifest);
    const auto sink = open_sink(choice.sink, manifest.output, source->fps(), source->live());
    auto read = files_of(bundle);
    read.emplace_back(source->location());
    if (comparison) {
        read.emplace_back(comparison->location());
    }
    refuse_overwriting({{"--sink", sink->location()}, {"--json", choice.json}}, read);
    RunOptions options{.policy = policy,
                       .deadline_ms = deadline_ms(choice, source->live()),
                       .to_output = between(manifest.input, manifest.output),
                       .tell = [](std::string_view line) { std::cerr << std::string(line) + "\n"; },
                       .stop = [] { return stopped_ns != 0; }};
    if (comparison) {
        options.on_frame = [&comparison](const FrameRecord&, const Frame& frame, const Picture& shown) {
            comparison->add(frame.picture.bytes(), shown.bytes());
        };
    }
    RunReport report{};
    options.on_report = [&report](const RunReport& made) { report = made; };
    try {
        LiveLine line(source->frames());
        options.on_status = [&line](const Status& status) { line.show(status); };
        run(engine, source, *sink, options);
        sink->close();
        source->close();
    } catch (...) {
        conclude_early(choice, report, *sink);
        throw;
    }
    nlohmann::ordered_json document = report;
    if (comparison && stopped_ns == 0) {
        try {
            const auto psnr = comparison->mean();
            document["psnr_rgb"] = psnr;
        } catch (const Error&) {
            conclude(choice, report, document);  // what was measured is not lost with what does not fit
            throw;
        }
    }
    conclude(choice, report, document);
}

}  // namespace

void add_run(CLI::App& app) {
    auto& verb = *app.add_subcommand("run",
                                     "Derain a stream with a bundle and report its latency; Ctrl-C ends it as "
                                     "the end of the source would.");
    const auto choice = std::make_shared<RunChoice>();
    choice->engine.add_to(verb);
    verb.add_option("--source", choice->source,
                    "file://CLIP, frames://FOLDER, v4l2:///dev/videoN, rtsp://HOST/PATH, gst:PIPELINE, shm://NAME or "
                    "test://rain?frames=N")
        ->required();
    verb.add_option("--sink", choice->sink, "file://OUT.mkv|.avi|.mp4, frames://FOLDER, shm://NAME or null://")
        ->required();
    verb.add_option("--policy", choice->policy,
                    "latest: the newest frame wins (live sources' own); every: none is lost (files' own).")
        ->check(CLI::IsMember({"latest", "every"}));
    add_deadline(verb, choice->deadline_ms,
                 "The raw frame goes out where the derained one is not there this long after its capture. Live "
                 "sources: 500 unless given, inf for none; files: none.");
    verb.add_option("--truth", choice->truth, "The clean frames of the source, to report PSNR against.");
    verb.add_option("--json", choice->json, "Write the report to this file; -: stdout.");
    verb.callback([choice] { derain_stream(*choice); });
}

}  // namespace derain
