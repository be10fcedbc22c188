/// The files that a verb writes, and that it must not.
#pragma once

#include <filesystem>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "derain/bundle.hpp"

namespace derain {

/// Writes a report by atomic rename, or to stdout for "-"; without a path nothing. A byte that is no UTF-8, as a file's
/// name may have, is replaced.
void write_report(const std::filesystem::path& path, const nlohmann::ordered_json& report, int indent);

/// Before the work: Error where a report could not be written to `path`. All else is told on stderr for "-".
void check_report(const std::filesystem::path& path);

/// A bundle's own files.
std::vector<std::filesystem::path> files_of(const Bundle& bundle);

/// Error where a file that an option names for writing is read too, or is named twice: one would be lost. `written` has
/// the paths by their options; devices and pipes lose nothing.
void refuse_overwriting(const std::map<std::string, std::filesystem::path>& written,
                        const std::vector<std::filesystem::path>& read);

}  // namespace derain
