/// The state of the machine a latency was measured on; a figure without it cannot be compared with another.
#pragma once

#include <nlohmann/json_fwd.hpp>

namespace derain {

/// This machine, now, with the keys of `derain bench`: `cores` are those this process may use, `load` is the average
/// number of busy ones over the last minute. null: this machine does not say, as most virtual ones do not of their
/// clocks.
nlohmann::ordered_json machine();

}  // namespace derain
