/// A camera of this machine through Video4Linux, and the kernel's face, so that the logic is tested without a camera.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "derain/stream/source.hpp"

namespace derain {

/// An open video device; on several threads at once, as the kernel's is.
class VideoDevice {
   public:
    VideoDevice() = default;
    VideoDevice(const VideoDevice&) = delete;
    VideoDevice& operator=(const VideoDevice&) = delete;
    virtual ~VideoDevice() = default;

    /// As ioctl(2): 0, or the errno where it fails.
    virtual int control(unsigned long request, void* argument) = 0;
    /// Maps a buffer for as long as the device is open; Error where that fails.
    virtual std::span<std::byte> map(std::size_t bytes, std::int64_t offset) = 0;
    /// Waits for a frame; false after `timeout_ms` without one.
    virtual bool wait(int timeout_ms) = 0;
};

/// Opens a device; Error where it is away or in use.
using OpenDevice = std::function<std::shared_ptr<VideoDevice>()>;

/// A camera's frames, without end, captured when the driver says where it says so by our clock.
///
/// The driver hands out what it filled oldest first: under `latest` all but the newest go back to it unread, else a
/// decoder slower than the camera would show the past. They count as skipped, and so do those that the driver lost.
///
/// Where the camera delivers `spec`'s own bytes without padding, the mapped buffer is the picture, and goes back to the
/// driver with the picture's last copy; the driver always keeps one to fill, so while the stream holds all others a
/// frame is copied. From YUYV and Motion JPEG the bytes are converted; from YUYV for uyvy they are swapped, and for
/// nv12 the chroma of two rows is averaged, so that the values stay the camera's. A frame that came in part, a Motion
/// JPEG cut short among them, is broken.
///
/// Throws Error, with the mend, for a camera that is interlaced or has the multi-planar interface only.
std::unique_ptr<Source> make_camera(const std::string& location, const FrameSpec& spec, OpenDevice open);

}  // namespace derain
