#include "images.hpp"

#include <cstring>
#include <string>

#include "derain/error.hpp"

namespace derain::gst {

namespace {

/// Calls `copy(row in the frame, offset in the bytes without padding, bytes)` for each row of each plane.
template <typename Copy>
void for_each_row(GstVideoFrame& frame, Copy copy) {
    const GstVideoFormatInfo& format = *frame.info.finfo;
    std::size_t offset = 0;
    for (guint plane = 0; plane < GST_VIDEO_FRAME_N_PLANES(&frame); ++plane) {
        const auto component = static_cast<guint>(plane);  // for our formats a plane's first component has its number
        const auto width = static_cast<std::size_t>(GST_VIDEO_FRAME_COMP_WIDTH(&frame, component));
        const auto row_bytes = width * static_cast<std::size_t>(GST_VIDEO_FORMAT_INFO_PSTRIDE(&format, component));
        const auto stride = GST_VIDEO_FRAME_PLANE_STRIDE(&frame, plane);
        auto* row = static_cast<std::byte*>(GST_VIDEO_FRAME_PLANE_DATA(&frame, plane));
        for (int line = 0; line < GST_VIDEO_FRAME_COMP_HEIGHT(&frame, component); ++line) {
            copy(row, offset, row_bytes);
            row += stride;
            offset += row_bytes;
        }
    }
}

/// Throws where a frame's rows are not as many bytes as the image: copying them would leave its memory.
void check_size(GstVideoFrame& frame, std::size_t expected) {
    std::size_t seen = 0;
    for_each_row(frame, [&seen](const std::byte*, std::size_t, std::size_t bytes) { seen += bytes; });
    if (seen != expected) {
        throw Error("a frame of " + std::to_string(seen) + " bytes, expected " + std::to_string(expected) +
                    ": put videoconvert and videoscale before");
    }
}

}  // namespace

const char* format_of(Pixels pixels) {
    switch (pixels) {
        case Pixels::bgr8:
            return "BGR";
        case Pixels::rgb8:
            return "RGB";
        case Pixels::nv12:
            return "NV12";
        default:
            return "UYVY";
    }
}

void read(GstVideoFrame& frame, std::span<std::byte> image) {
    check_size(frame, image.size());
    for_each_row(frame, [image](const std::byte* row, std::size_t offset, std::size_t bytes) {
        std::memcpy(image.subspan(offset, bytes).data(), row, bytes);
    });
}

void write(std::span<const std::byte> image, GstVideoFrame& frame) {
    check_size(frame, image.size());
    for_each_row(frame, [image](std::byte* row, std::size_t offset, std::size_t bytes) {
        std::memcpy(row, image.subspan(offset, bytes).data(), bytes);
    });
}

}  // namespace derain::gst
