/// What caps say of a bundle's frames.
#pragma once

#include <gst/video/video.h>

#include <string>

#include "derain/frame.hpp"

namespace derain::gst {

/// Makes each structure of writable `caps` one of frames as `spec` says: their format, their size and, where they are
/// YUV, their colorimetry.
///
/// That is any of `spec`'s matrix and range: transfer function and primaries are the stream's own, and stay as they
/// are.
void describe(GstCaps& caps, const FrameSpec& spec);

/// Whether frames are as `spec` says. Colorimetry that the caps do not tell is not held against them: `info` has
/// GStreamer's guess then.
bool fits(const GstVideoInfo& info, const GstCaps& caps, const FrameSpec& spec);

/// "64x48 BGR", and for YUV with the colorimetry as caps spell it: "64x48 NV12 bt601".
std::string to_string(const GstVideoInfo& info);
std::string to_string(const FrameSpec& spec);

}  // namespace derain::gst
