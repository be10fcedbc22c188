/// What became of each frame, and the report of a run made of it.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "derain/stream/guard.hpp"
#include "derain/stream/latency.hpp"
#include "derain/stream/queue.hpp"

namespace derain {

/// Of one frame.
enum class Outcome { derained, passed_through, dropped };

/// Why a frame was not derained.
enum class Why { deadline, late, fault, away, given_up, unfit, broken, newer, sink };

inline constexpr std::size_t outcome_count = 3;
inline constexpr std::size_t why_count = 9;

std::string_view to_string(Why why);

/// When one frame passed each stage, `monotonic_ns()`; nothing for a stage it did not pass.
///
/// `asked_ns` is when the source was asked for it. A frame that is passed through has no times of inference, also where
/// the engine worked on it. `why` is empty for a derained frame.
struct FrameRecord {
    std::int64_t id = 0;
    std::int64_t asked_ns = 0;
    std::int64_t captured_ns = 0;
    std::optional<std::int64_t> inference_start_ns;
    std::optional<std::int64_t> inference_end_ns;
    std::optional<std::int64_t> presented_ns;
    Outcome outcome{};
    std::optional<Why> why;
};

/// What a run did: `frames` = `presented` + `dropped`, and `passed_through` are those presented raw.
///
/// `deadline_misses` are the frames whose result was not there in time, those that a late engine never saw among them;
/// `fps` is presented frames a second from start to end, `outside_engine_share` the share of that time in which the
/// engine had nothing to do. `error` is what ended the run early. `why` counts the frames that were not derained by
/// their reason. Stages: `capture` from asking the source to having the bytes, `wait` for the engine, `inference` (also
/// when its result came too late), `present` from the result to the sink's return, and `capture_to_present` over all
/// presented frames.
struct RunReport {
    Policy policy;
    std::optional<double> deadline_ms;
    std::int64_t frames, presented, dropped, passed_through, deadline_misses;
    std::int64_t engine_faults, engine_reopened;
    State engine_state;
    std::optional<std::string> engine_fault;
    std::int64_t source_faults;
    std::optional<std::string> source_fault, error;
    std::map<std::string, std::int64_t> why;
    double fps, outside_engine_share;
    std::map<Stage, Percentiles> latency_ms;
};

/// The keys of `derain run --json`, in its order; runtime/report.schema.json says them.
void to_json(nlohmann::ordered_json& json, const RunReport& report);
void to_json(nlohmann::ordered_json& json, const Percentiles& percentiles);

/// A run as it stands: counts since its start, rates and ages over the last frames, the two states in words. `fps` is
/// up to now, so it falls when nothing comes any more.
struct Status {
    std::int64_t frames, dropped, passed_through;
    double fps, p50_ms, p99_ms, age_ms;
    std::string_view engine;
    std::string source;
};

/// Counts frames captured at `from_ns` or later; bounded in memory whatever their number.
class Tally {
   public:
    explicit Tally(std::int64_t from_ns = 0) : from_ns_(from_ns) {}

    /// Counts one frame.
    void add(const FrameRecord& record);
    /// Counts the inference of a frame that went out raw all the same: without it the percentiles would flatter.
    void add_unused_inference(std::int64_t captured_ns, std::int64_t ns);

    [[nodiscard]] std::int64_t count(Outcome outcome) const { return outcomes_[static_cast<std::size_t>(outcome)]; }
    [[nodiscard]] std::int64_t count(Why why) const { return why_[static_cast<std::size_t>(why)]; }
    [[nodiscard]] std::int64_t deadline_misses() const { return count(Why::deadline) + count(Why::late); }
    [[nodiscard]] std::int64_t frames() const { return presented() + count(Outcome::dropped); }
    /// Frames that reached the sink.
    [[nodiscard]] std::int64_t presented() const { return count(Outcome::derained) + count(Outcome::passed_through); }
    [[nodiscard]] std::optional<std::int64_t> last_presented_ns() const { return last_presented_ns_; }
    [[nodiscard]] const Latency& latency() const { return latency_; }

    /// The run as it stands.
    [[nodiscard]] Status status(std::int64_t now_ns, State engine, std::string source) const;
    /// The counts of a run that began at `start_ns`; its guard and source fill in the rest.
    [[nodiscard]] RunReport report(Policy policy, const Guard& guard, std::int64_t start_ns, std::int64_t now_ns) const;

   private:
    static constexpr std::size_t recent_frames = 256;  // behind the live figures: some seconds

    struct Shown {
        std::int64_t presented_ns, age_ns;
    };

    std::int64_t from_ns_;
    std::array<std::int64_t, outcome_count> outcomes_{};
    std::array<std::int64_t, why_count> why_{};
    Latency latency_;
    std::optional<std::int64_t> last_presented_ns_;
    std::optional<std::int64_t> newest_captured_ns_;
    std::array<Shown, recent_frames> recent_{};
};

}  // namespace derain
