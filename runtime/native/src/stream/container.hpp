/// Whether a video file is cut short: its number of frames alone does not say so in every container.
#pragma once

#include <filesystem>

namespace derain {

/// Of a video that gave fewer frames than OpenCV expected; false where its container does not tell.
///
/// An AVI counts the frames that its writer left empty, too, but is chunks that say how long they are. An .mp4, .m4v or
/// .mov counts those that an edit list hides, but is boxes that say so: ISO/IEC 14496-12, section 4.2. For others
/// OpenCV multiplies their duration by the rate, and where the sound is longer than the picture that is more than there
/// are. Of those Matroska, .mkv and .webm, says how many bytes it has: RFC 8794 (EBML), section 6, and RFC 9559.
bool is_cut_short(const std::filesystem::path& path);

}  // namespace derain
