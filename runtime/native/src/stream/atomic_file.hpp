/// Files that appear whole or not at all: written under a temporary name beside the target, then renamed.
#pragma once

#include <filesystem>
#include <span>

namespace derain {

/// A hidden, unused name in `path`'s folder with `path`'s suffix, so that a rename onto `path` is atomic.
std::filesystem::path temporary_beside(const std::filesystem::path& path);

/// Where a link points: what is renamed onto is the file itself.
std::filesystem::path behind_links(const std::filesystem::path& path);

/// Whether a device, FIFO or socket is there, which a rename would take from everyone who uses it.
bool is_node(const std::filesystem::path& path);

/// Error where `write_bytes` could not write to `path`: a folder is there, or it lies behind a file, or in a
/// folder that cannot be written to.
void check_place(const std::filesystem::path& path);

/// Writes `data` to `path`, or to where a link points, making its folder, by atomic rename; Error where that fails, and
/// then nothing is left. A device, FIFO or socket is written into.
void write_bytes(const std::filesystem::path& path, std::span<const std::byte> data);

}  // namespace derain
