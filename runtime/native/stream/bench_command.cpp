#include <algorithm>
#include <chrono>
#include <cmath>
#include <iomanip>
#include <iostream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>
#include <utility>
#include <vector>

#include "choices.hpp"
#include "commands.hpp"
#include "derain/stream/streams.hpp"
#include "machine.hpp"
#include "report_file.hpp"
#include "show.hpp"

namespace derain {

namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t picture_count = 30;  // in memory and shown in turn, so that reading them costs nothing

struct BenchChoice {
    EngineChoice engine;
    double fps = 30;
    double seconds = 40;
    double warm_up_s = 2;
    std::optional<double> deadline_ms;
    std::string source = "test://rain";
    std::string json;
};

/// `count` frames at `fps` from a few pictures in memory, each captured when it was due, without a copy.
///
/// The clock is an open loop: frame n is due at start + n / fps whatever the pipeline does, and its age counts from
/// then. So a slow engine shows as drops and age; a closed loop would only show a slower camera (coordinated omission).
class CameraClock final : public Source {
   public:
    CameraClock(std::vector<Picture> pictures, const FrameSpec& spec, double fps, std::int64_t count)
        : Source("memory", spec), pictures_(std::move(pictures)), period_ns_(1e9 / fps) {
        set_live(true);
        set_fps(fps);
        set_frames(count);
    }

    [[nodiscard]] std::unique_ptr<Source> reopened() const override { throw Error("memory: cannot be lost"); }
    [[nodiscard]] std::int64_t start_ns() const { return start_ns_; }

   private:
    Read read() override {
        if (next_ == frames()) {
            return {};
        }
        const auto due_ns = start_ns_ + std::llround(static_cast<double>(next_) * period_ns_);
        std::this_thread::sleep_for(std::chrono::nanoseconds(due_ns - monotonic_ns()));
        return {.picture = pictures_[static_cast<std::size_t>(next_++) % pictures_.size()], .captured_ns = due_ns};
    }

    std::vector<Picture> pictures_;
    double period_ns_;
    std::int64_t start_ns_ = monotonic_ns();
    std::int64_t next_ = 0;
};

/// Whole frames only: a camera's may be broken or of another size.
std::vector<Picture> first_pictures(const std::string& uri, const FrameSpec& spec) {
    const auto source = open_source(uri, spec);
    std::vector<Picture> pictures;
    while (pictures.size() < picture_count) {
        auto frame = source->next();
        if (!frame) {
            break;
        }
        if (frame->fits && !frame->broken) {
            pictures.push_back(std::move(frame->picture));
        }
    }
    return pictures;
}

double rounded(double value) { return std::round(value * 1e4) / 1e4; }

double ms(std::int64_t from_ns, std::int64_t to_ns) { return rounded(static_cast<double>(to_ns - from_ns) / 1e6); }

/// How far the time between two presentations was from the clock's period.
std::optional<Percentiles> jitter(const std::vector<FrameRecord>& records, double fps) {
    Histogram histogram;
    for (std::size_t index = 1; index < records.size(); ++index) {
        const auto gap_ns = *records[index].presented_ns - *records[index - 1].presented_ns;
        histogram.add(std::abs(gap_ns - std::llround(1e9 / fps)));
    }
    return histogram.count() > 0 ? std::optional(histogram.percentiles()) : std::nullopt;
}

using Inferences = std::vector<std::pair<std::int64_t, std::int64_t>>;  // captured at, took, ns

/// Every frame's stages as far as it passed them: `inferences` are also of results that came too late, `at_s` are the
/// seconds of the presented frames' capture after the warm-up.
void add_samples(Json& json, const std::vector<FrameRecord>& records, Inferences inferences, std::int64_t from_ns) {
    auto& at_s = json["at_s"] = Json::array();
    auto& samples = json["samples_ms"];
    for (const auto* stage : {"wait", "inference", "present", "capture_to_present"}) {
        samples[stage] = Json::array();
    }
    for (const auto& record : records) {
        at_s.push_back(rounded(static_cast<double>(record.captured_ns - from_ns) / 1e9));
        samples["capture_to_present"].push_back(ms(record.captured_ns, *record.presented_ns));
        if (record.inference_start_ns) {
            samples["wait"].push_back(ms(record.captured_ns, *record.inference_start_ns));
            samples["present"].push_back(ms(*record.inference_end_ns, *record.presented_ns));
            inferences.emplace_back(record.captured_ns, *record.inference_end_ns - *record.inference_start_ns);
        }
    }
    std::ranges::sort(inferences);
    for (const auto& [captured_ns, took_ns] : inferences) {
        samples["inference"].push_back(ms(0, took_ns));
    }
}

void bench(const BenchChoice& choice) {
    check_report(choice.json);
    if (!(choice.seconds * choice.fps >= 1)) {  // also of NaN, which is in every range
        std::ostringstream told;
        told << choice.seconds << " s at " << choice.fps << " frames/s hold no frame: give it longer with --seconds";
        throw Error(told.str());
    }
    const Bundle bundle = Bundle::load(choice.engine.bundle);
    refuse_overwriting({{"--json", choice.json}}, files_of(bundle));
    const auto& manifest = bundle.manifest();
    auto pictures = first_pictures(choice.source, manifest.input);
    const auto engine = choice.engine.open(bundle);
    const auto before = machine();
    const auto count = std::llround((choice.warm_up_s + choice.seconds) * choice.fps);
    const auto source = std::make_shared<CameraClock>(std::move(pictures), manifest.input, choice.fps, count);
    const auto from_ns = source->start_ns() + std::llround(choice.warm_up_s * 1e9);
    std::vector<FrameRecord> records;
    records.reserve(static_cast<std::size_t>(count));
    Inferences unused;
    unused.reserve(static_cast<std::size_t>(count));
    const auto sink = open_sink("null://", manifest.output);
    const bool endless = choice.deadline_ms && std::isinf(*choice.deadline_ms);
    auto report = run(engine, source, *sink,
                      {.policy = Policy::latest,
                       .deadline_ms = endless ? std::nullopt : choice.deadline_ms,
                       .count_from_ns = from_ns,
                       .to_output = between(manifest.input, manifest.output),
                       .on_frame =
                           [&](const FrameRecord& record, const Frame&, const Picture&) {
                               if (record.captured_ns >= from_ns) {
                                   records.push_back(record);
                               }
                           },
                       .on_unused =
                           [&](std::int64_t captured_ns, std::int64_t ns) {
                               if (captured_ns >= from_ns) {
                                   unused.emplace_back(captured_ns, ns);
                               }
                           }});
    // Over the time measured: from the first to the last presentation is one period less.
    report.fps = static_cast<double>(report.presented) / choice.seconds;
    Json json = report;
    json["model"] = manifest.model.name;
    json["engine"] = engine->name();
    json["precision"] = choice.engine.precision;
    json["width"] = manifest.input.width;
    json["height"] = manifest.input.height;
    json["pixels"] = to_string(manifest.input.pixels);
    json["camera_fps"] = choice.fps;
    json["seconds"] = choice.seconds;
    json["warm_up_s"] = choice.warm_up_s;
    const auto shake = jitter(records, choice.fps);
    json["jitter_ms"] = shake ? Json(*shake) : Json(nullptr);
    json["before"] = before;
    json["after"] = machine();
    add_samples(json, records, std::move(unused), from_ns);
    summarise(report, "null://");
    if (shake) {
        std::cout << "jitter p50 " << shake->p50 << " ms, p99 " << shake->p99 << " ms\n";
    }
    if (before["load"].get<double>() > before["cores"].get<double>() / 2) {
        std::cout << "the machine was busy before (" << before["load"] << " of " << before["cores"]
                  << " cores): the figures are worse than its best\n";
    }
    write_report(choice.json, json, 1);
}

}  // namespace

void add_bench(CLI::App& app) {
    auto& verb = *app.add_subcommand("bench",
                                     "Measure a bundle's latency stage by stage at a camera's frame rate; "
                                     "`derain bench --compare` compares two such reports.");
    const auto choice = std::make_shared<BenchChoice>();
    choice->engine.add_to(verb);
    verb.add_option("--fps", choice->fps, "The camera's frames a second, which wait for nobody.")
        ->check(CLI::Range(0.1, 1000.0))
        ->capture_default_str();
    verb.add_option("--seconds", choice->seconds, "How long to measure, after the warm-up.")
        ->check(CLI::Range(0.1, 1e6))
        ->capture_default_str();
    verb.add_option("--warm-up", choice->warm_up_s, "Seconds to run before the measurement.")
        ->check(CLI::Range(0.0, 1e6))
        ->capture_default_str();
    add_deadline(verb, choice->deadline_ms,
                 "Send the raw frame on if the derained one is not ready so long after its capture; else never.");
    verb.add_option("--source", choice->source, "Where the first 30 frames come from.")->capture_default_str();
    verb.add_option("--json", choice->json, "Write the report with every frame's times to this file; -: stdout.");
    verb.callback([choice] { bench(*choice); });
}

}  // namespace derain
