/// What a stream shows while it runs, and at its end.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "derain/stream/records.hpp"

namespace derain {

/// A status in one line.
std::string describe(const Status& status, std::optional<std::int64_t> total);

/// One line that changes on a terminal, every few seconds a line in a log.
class LiveLine {
   public:
    explicit LiveLine(std::optional<std::int64_t> total);
    LiveLine(const LiveLine&) = delete;
    LiveLine& operator=(const LiveLine&) = delete;
    /// Wipes the line off the terminal.
    ~LiveLine();

    void show(const Status& status);

   private:
    std::optional<std::int64_t> total_;
    bool terminal_;
    std::int64_t told_ns_;
};

/// Prints a report: what came out where, what did not and why, and the latency.
void summarise(const RunReport& report, const std::string& place);

}  // namespace derain
