#include "show.hpp"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <iomanip>
#include <iostream>
#include <sstream>

#include "derain/stream/clock.hpp"

namespace derain {

namespace {
constexpr std::int64_t log_every_ns = 5 * second_ns;
}

std::string describe(const Status& status, std::optional<std::int64_t> total) {
    std::ostringstream line;
    line << std::fixed << std::setprecision(1) << "frame " << status.frames;
    if (total) {
        line << " of " << *total;
    }
    line << " · " << status.fps << " frames/s · p50 " << status.p50_ms << " ms, p99 " << status.p99_ms << " ms · age "
         << std::setprecision(0) << status.age_ms << " ms · dropped " << status.dropped << " · passed through "
         << status.passed_through;
    if (status.engine != to_string(State::deraining)) {
        line << " · engine " << status.engine;
    }
    if (status.source != "open") {
        line << " · source " << status.source;
    }
    return line.str();
}

LiveLine::LiveLine(std::optional<std::int64_t> total)
    : total_(total), terminal_(::isatty(STDOUT_FILENO) == 1), told_ns_(monotonic_ns()) {}

LiveLine::~LiveLine() {
    if (terminal_) {
        std::cout << "\r\x1b[K" << std::flush;
    }
}

void LiveLine::show(const Status& status) {
    if (terminal_) {
        std::cout << "\r\x1b[K" << describe(status, total_) << std::flush;
    } else if (const auto now_ns = monotonic_ns(); now_ns - told_ns_ >= log_every_ns) {
        told_ns_ = now_ns;
        std::cout << describe(status, total_) << std::endl;
    }
}

void summarise(const RunReport& report, const std::string& place) {
    auto& out = std::cout;
    out << std::fixed << std::setprecision(1) << report.presented << " of " << report.frames << " frames to " << place
        << ", " << report.presented - report.passed_through << " of them derained, " << report.fps << " frames/s, "
        << 100 * report.outside_engine_share << "% of the time outside the engine\n";
    for (const auto& [why, count] : report.why) {
        out << count << " not derained: " << why << "\n";
    }
    if (report.engine_faults > 0) {
        out << "engine faults: " << report.engine_faults << ", reopened " << report.engine_reopened << " times, "
            << to_string(report.engine_state) << " at the end; the last: " << report.engine_fault.value_or("") << "\n";
    }
    if (report.source_faults > 0) {
        out << "source lost: " << report.source_faults << " times; the last: " << report.source_fault.value_or("")
            << "\n";
    }
    out << std::setprecision(2) << std::left << std::setw(20) << "latency, ms" << std::right;
    for (const auto* head : {"p50", "p90", "p99", "p99.9", "max"}) {
        out << std::setw(10) << head;
    }
    for (const auto& [stage, ms] : report.latency_ms) {
        std::string name(to_string(stage));
        std::ranges::replace(name, '_', ' ');
        out << "\n" << std::left << std::setw(20) << name << std::right;
        for (const double value : {ms.p50, ms.p90, ms.p99, ms.p999, ms.max}) {
            out << std::setw(10) << value;
        }
    }
    out << std::endl;
}

}  // namespace derain
