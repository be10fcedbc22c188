/// GStreamer's words for camera bytes.
#pragma once

#include <gst/video/video.h>

#include <span>

#include "derain/frame.hpp"

namespace derain::gst {

/// "BGR", "RGB", "NV12" or "UYVY".
const char* format_of(Pixels pixels);

/// A mapped frame's rows, without padding, into `image`; Error where they are not as many bytes.
void read(GstVideoFrame& frame, std::span<std::byte> image);
/// And back.
void write(std::span<const std::byte> image, GstVideoFrame& frame);

}  // namespace derain::gst
