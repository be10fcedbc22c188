/// Whether a video file is cut short: its number of frames alone does not say so in every container.
#pragma once

#include <filesystem>

namespace derain {

/// Of a video that gave fewer frames than OpenCV expected; false where its container does not tell.
///
/// Some containers store how many frames they hold. For others OpenCV multiplies their duration by the rate, and where
/// the sound is longer than the picture that is more than there are. Of those Matroska, .mkv and .webm, says how many
/// bytes it has: RFC 8794 (EBML), section 6, and RFC 9559.
bool is_cut_short(const std::filesystem::path& path);

}  // namespace derain
