/// Latency by stage, as percentiles, in memory that does not grow with the run.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

namespace derain {

/// Of one stage, in milliseconds.
struct Percentiles {
    double p50, p90, p99, p999, max;
};

/// Durations in ns, counted in buckets whose width grows with the value (the scheme of HdrHistogram).
///
/// A duration of more than 9 bits keeps its highest 9, so `shift * 256 + (ns >> shift)` numbers the buckets without
/// gaps, and a percentile is within 0.2 %. The total and the maximum are exact. Memory is taken at once, 90 KB.
class Histogram {
   public:
    Histogram();

    /// Counts one duration, 0 to 13 days; one beyond counts as that end.
    void add(std::int64_t ns);

    /// The duration in ns that `share` of all stay below, linear between neighbours as in numpy; at least one is
    /// counted.
    [[nodiscard]] double quantile(double share) const;
    /// In milliseconds.
    [[nodiscard]] Percentiles percentiles() const;

    [[nodiscard]] std::int64_t count() const { return count_; }
    [[nodiscard]] std::int64_t total() const { return total_; }

   private:
    std::vector<std::int64_t> counts_;
    std::int64_t count_ = 0;
    std::int64_t total_ = 0;
    std::int64_t longest_ = 0;
};

/// Of a frame's way: see RunReport.
enum class Stage { capture, wait, inference, present, capture_to_present };

inline constexpr std::array stages{Stage::capture, Stage::wait, Stage::inference, Stage::present,
                                   Stage::capture_to_present};

std::string_view to_string(Stage stage);

/// Durations by stage; what is not to count, such as warm-up, is not added.
class Latency {
   public:
    void add(Stage stage, std::int64_t ns) { at(stage).add(ns); }
    [[nodiscard]] const Histogram& of(Stage stage) const { return histograms_[static_cast<std::size_t>(stage)]; }

   private:
    Histogram& at(Stage stage) { return histograms_[static_cast<std::size_t>(stage)]; }

    std::array<Histogram, stages.size()> histograms_;
};

}  // namespace derain
