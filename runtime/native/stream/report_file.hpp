/// The file that --json names.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>

namespace derain {

/// Writes a report by atomic rename; without a path nothing. A byte that is no UTF-8, as a file's name may have, is
/// replaced.
void write_report(const std::filesystem::path& path, const nlohmann::ordered_json& report, int indent);

/// Before the work: Error where a report could not be written to `path`.
void check_report(const std::filesystem::path& path);

}  // namespace derain
