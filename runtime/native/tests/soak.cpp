/// A long run at small size: does memory, do handles, do threads grow?
///
///     derain_stream_soak [FRAMES]
///
/// A trivial engine behind the whole pipeline, frames from memory as fast as they go (`every`). Memory is sampled every
/// 1,000 frames; the slope is that of a straight line through the samples of the second half, since caches and
/// allocators fill in the first. Prints the figures, and exits 1 where something grew: 1 MB in 100,000 frames, a
/// handle, a thread.
#include <fstream>
#include <iostream>
#include <iterator>

#include "stream_support.hpp"

namespace derain {
namespace {

constexpr std::int64_t every = 1000;

struct Sample {
    double frame, resident_bytes;
};

/// What the process holds.
struct Held {
    std::ptrdiff_t handles = 0, threads = 0;
};

double resident_bytes() {
    std::ifstream file("/proc/self/statm");
    double size = 0;
    double resident = 0;
    file >> size >> resident;
    return resident * static_cast<double>(::sysconf(_SC_PAGESIZE));
}

std::ptrdiff_t entries(const char* folder) {
    return std::distance(std::filesystem::directory_iterator(folder), std::filesystem::directory_iterator());
}

/// Of a straight line through the second half, bytes a frame.
double slope(std::span<const Sample> samples) {
    samples = samples.subspan(samples.size() / 2);
    double x = 0;
    double y = 0;
    for (const auto& sample : samples) {
        x += sample.frame / static_cast<double>(samples.size());
        y += sample.resident_bytes / static_cast<double>(samples.size());
    }
    double xx = 0;
    double xy = 0;
    for (const auto& sample : samples) {
        xx += (sample.frame - x) * (sample.frame - x);
        xy += (sample.frame - x) * (sample.resident_bytes - y);
    }
    return xx > 0 ? xy / xx : 0;
}

int soak(std::int64_t frames) {
    constexpr int soak_width = 64;
    constexpr int soak_height = 48;
    const FrameSpec spec{.tensor = "frame", .width = soak_width, .height = soak_height};
    const auto engine = std::make_shared<testing::ScriptedEngine>(std::map<int, testing::Fault>{}, 0, 0,
                                                                  testing::make_bundle(soak_width, soak_height));
    engine->open();
    const auto source = std::make_shared<testing::MemorySource>(testing::noise(8, spec.bytes()), frames, spec);
    testing::CountingSink sink(spec);
    std::vector<Sample> samples;
    samples.reserve(static_cast<std::size_t>(frames / every + 1));
    Held before;
    Held now;
    const auto report =
        run(engine, source, sink, {.on_frame = [&](const FrameRecord& record, const Frame&, const Picture&) {
                if (record.id % every == 0) {
                    samples.push_back({static_cast<double>(record.id), resident_bytes()});
                    now = {.handles = entries("/proc/self/fd"), .threads = entries("/proc/self/task")};
                    before = record.id == 0 ? now : before;
                }
            }});
    const double mb_per_100k = slope(samples) * 1e5 / 1e6;
    const auto& whole = report.latency_ms.at(Stage::capture_to_present);
    std::cout << report.presented << " of " << report.frames << " frames, " << report.fps << " frames/s, "
              << report.passed_through << " raw\nmemory " << mb_per_100k << " MB per 100,000 frames, handles "
              << now.handles - before.handles << ", threads " << now.threads - before.threads
              << "\ncapture to present p50 " << whole.p50 << " ms, p99.9 " << whole.p999 << " ms, max " << whole.max
              << " ms\n";
    const bool lost = report.presented != frames || report.passed_through != 0;
    return lost || mb_per_100k > 1 || now.handles > before.handles || now.threads > before.threads ? 1 : 0;
}

}  // namespace
}  // namespace derain

int main(int count, char** arguments) { return derain::soak(count > 1 ? std::stoll(arguments[1]) : 200'000); }
