#include "derain/stream/records.hpp"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

namespace derain {

namespace {

constexpr double ns_a_ms = 1e6;
constexpr double ns_a_s = 1e9;

/// What `share` of `sorted` stay below, linear between neighbours as in numpy; 0 of nothing.
double quantile(std::span<const std::int64_t> sorted, double share) {
    if (sorted.empty()) {
        return 0;
    }
    const double rank = share * static_cast<double>(sorted.size() - 1);
    const auto below = static_cast<std::size_t>(rank);
    const auto above = std::min(below + 1, sorted.size() - 1);
    return std::lerp(static_cast<double>(sorted[below]), static_cast<double>(sorted[above]),
                     rank - static_cast<double>(below));
}

}  // namespace

std::string_view to_string(Why why) {
    constexpr std::array<std::string_view, why_count> texts{"missed its deadline",
                                                            "the engine was late with an earlier frame",
                                                            "the engine failed on it",
                                                            "the engine was being reopened",
                                                            "the engine failed too often",
                                                            "the camera changed its size",
                                                            "the camera's frame came broken",
                                                            "a newer frame came",
                                                            "the sink failed"};
    return texts[static_cast<std::size_t>(why)];
}

void Tally::add(const FrameRecord& record) {
    if (record.captured_ns < from_ns_) {
        return;
    }
    ++outcomes_[static_cast<std::size_t>(record.outcome)];
    if (record.why) {
        ++why_[static_cast<std::size_t>(*record.why)];
    }
    latency_.add(Stage::capture, std::max<std::int64_t>(record.captured_ns - record.asked_ns, 0));
    if (!record.presented_ns) {
        return;
    }
    const auto age_ns = *record.presented_ns - record.captured_ns;
    if (record.inference_start_ns && record.inference_end_ns) {
        latency_.add(Stage::wait, std::max<std::int64_t>(*record.inference_start_ns - record.captured_ns, 0));
        latency_.add(Stage::inference, *record.inference_end_ns - *record.inference_start_ns);
        latency_.add(Stage::present, *record.presented_ns - *record.inference_end_ns);
    }
    latency_.add(Stage::capture_to_present, std::max<std::int64_t>(age_ns, 0));
    last_presented_ns_ = record.presented_ns;
    newest_captured_ns_ = record.captured_ns;
    recent_[static_cast<std::size_t>(presented() - 1) % recent_frames] = {*record.presented_ns, age_ns};
}

void Tally::add_unused_inference(std::int64_t captured_ns, std::int64_t ns) {
    if (captured_ns >= from_ns_) {
        latency_.add(Stage::inference, ns);
    }
}

Status Tally::status(std::int64_t now_ns, State engine, std::string source) const {
    const auto count = std::min(static_cast<std::size_t>(presented()), recent_frames);
    std::array<std::int64_t, recent_frames> ages{};
    std::transform(recent_.begin(), recent_.begin() + static_cast<std::ptrdiff_t>(count), ages.begin(),
                   [](const Shown& shown) { return shown.age_ns; });
    const auto sorted = std::span(ages).first(count);
    std::ranges::sort(sorted);
    double fps = 0;
    if (count > 1) {
        const auto first = static_cast<std::size_t>(presented()) - count;
        const auto span_ns = now_ns - recent_[first % recent_frames].presented_ns;
        fps = span_ns > 0 ? static_cast<double>(count - 1) / static_cast<double>(span_ns) * ns_a_s : 0;
    }
    return {
        .frames = frames(),
        .dropped = this->count(Outcome::dropped),
        .passed_through = this->count(Outcome::passed_through),
        .fps = fps,
        .p50_ms = quantile(sorted, 0.5) / ns_a_ms,
        .p99_ms = quantile(sorted, 0.99) / ns_a_ms,
        .age_ms = newest_captured_ns_ ? static_cast<double>(now_ns - *newest_captured_ns_) / ns_a_ms : 0,
        .engine = to_string(engine),
        .source = std::move(source),
    };
}

RunReport Tally::report(Policy policy, const Guard& guard, std::int64_t start_ns, std::int64_t now_ns) const {
    RunReport report{};
    report.policy = policy;
    if (guard.deadline_ns()) {
        report.deadline_ms = static_cast<double>(*guard.deadline_ns()) / ns_a_ms;
    }
    report.frames = frames();
    report.presented = presented();
    report.dropped = count(Outcome::dropped);
    report.passed_through = count(Outcome::passed_through);
    report.deadline_misses = deadline_misses();
    report.engine_faults = guard.faults();
    report.engine_reopened = guard.reopened();
    report.engine_state = guard.state();
    report.engine_fault = guard.fault();
    for (std::size_t index = 0; index < why_count; ++index) {
        if (why_[index] > 0) {
            report.why[std::string(to_string(static_cast<Why>(index)))] = why_[index];
        }
    }
    const auto elapsed_ns =
        static_cast<double>(std::max<std::int64_t>(last_presented_ns_.value_or(now_ns) - start_ns, 1));
    const auto inference_ns = static_cast<double>(latency_.of(Stage::inference).total());
    report.fps = static_cast<double>(report.presented) / elapsed_ns * ns_a_s;
    report.outside_engine_share = std::max(1 - inference_ns / elapsed_ns, 0.0);
    for (const auto stage : stages) {
        if (const auto& histogram = latency_.of(stage); histogram.count() > 0) {
            report.latency_ms.emplace(stage, histogram.percentiles());
        }
    }
    return report;
}

void to_json(nlohmann::ordered_json& json, const Percentiles& percentiles) {
    json = {{"p50", percentiles.p50},
            {"p90", percentiles.p90},
            {"p99", percentiles.p99},
            {"p999", percentiles.p999},
            {"max", percentiles.max}};
}

void to_json(nlohmann::ordered_json& json, const RunReport& report) {
    const auto or_null = [](const auto& value) {
        return value ? nlohmann::ordered_json(*value) : nlohmann::ordered_json(nullptr);
    };
    nlohmann::ordered_json latency_ms = nlohmann::ordered_json::object();
    for (const auto& [stage, percentiles] : report.latency_ms) {
        latency_ms[std::string(to_string(stage))] = percentiles;
    }
    nlohmann::ordered_json why = nlohmann::ordered_json::object();
    for (const auto& [reason, count] : report.why) {
        why[reason] = count;
    }
    json = nlohmann::ordered_json::object();
    json["policy"] = to_string(report.policy);
    json["deadline_ms"] = or_null(report.deadline_ms);
    json["frames"] = report.frames;
    json["presented"] = report.presented;
    json["dropped"] = report.dropped;
    json["passed_through"] = report.passed_through;
    json["deadline_misses"] = report.deadline_misses;
    json["engine_faults"] = report.engine_faults;
    json["engine_reopened"] = report.engine_reopened;
    json["engine_state"] = to_string(report.engine_state);
    json["engine_fault"] = or_null(report.engine_fault);
    json["source_faults"] = report.source_faults;
    json["source_fault"] = or_null(report.source_fault);
    json["error"] = or_null(report.error);
    json["why"] = std::move(why);
    json["fps"] = report.fps;
    json["outside_engine_share"] = report.outside_engine_share;
    json["latency_ms"] = std::move(latency_ms);
}

}  // namespace derain
