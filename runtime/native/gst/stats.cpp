#include "stats.hpp"

namespace derain::gst {

GstStructure* stats_of(const Tally& tally) {
    GstStructure* stats = gst_structure_new_empty("application/x-derain-stats");
    const auto count = [stats](const char* name, std::int64_t value) {
        gst_structure_set(stats, name, G_TYPE_UINT64, static_cast<guint64>(value), nullptr);
    };
    const auto ms = [stats, &tally](const char* name, Stage stage, double share) {
        const Histogram& durations = tally.latency().of(stage);
        const double value = durations.count() > 0 ? durations.quantile(share) / 1e6 : 0;
        gst_structure_set(stats, name, G_TYPE_DOUBLE, value, nullptr);
    };
    count("presented", tally.presented());
    count("passed-through", tally.count(Outcome::passed_through));
    count("deadline-misses", tally.deadline_misses());
    count("engine-faults", tally.count(Why::fault));
    ms("inference-p50-ms", Stage::inference, 0.5);
    ms("inference-p99-ms", Stage::inference, 0.99);
    ms("capture-to-present-p50-ms", Stage::capture_to_present, 0.5);
    ms("capture-to-present-p99-ms", Stage::capture_to_present, 0.99);
    return stats;
}

}  // namespace derain::gst
