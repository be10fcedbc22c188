#pragma once

#include <filesystem>
#include <string>

namespace derain {

/// The SHA-256 of a file's bytes as 64 lower-case hexadecimal digits; Error where it cannot be read.
std::string sha256_of(const std::filesystem::path& path);

}  // namespace derain
