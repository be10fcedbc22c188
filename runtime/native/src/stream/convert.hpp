/// The desk's stand-in for a camera's bytes: BGR as OpenCV decodes it to camera bytes, and back.
#pragma once

#include <opencv2/core.hpp>
#include <span>
#include <string>

#include "derain/frame.hpp"

namespace derain {

/// BGR [H, W, 3] as the camera bytes `spec` asks for, into `image`.
///
/// Chroma is the mean over the pixels that share it (2 by 2 for nv12, 2 by 1 for uyvy), rounded once. Throws Error,
/// with `name` before it, where the size is not `spec`'s.
void from_bgr(const cv::Mat& bgr, const FrameSpec& spec, std::span<std::byte> image, const std::string& name);

/// Camera bytes as BGR [H, W, 3], shared chroma repeated; for bgr8 a view of `image`, which must outlive it.
cv::Mat to_bgr(std::span<const std::byte> image, const FrameSpec& spec);

/// BGR [H, W, 3] at `spec`'s size, by area.
cv::Mat scaled(const cv::Mat& bgr, const FrameSpec& spec);

/// `image` as rows by columns of 8-bit pixels of `channels`: a view.
cv::Mat view(std::span<std::byte> image, int rows, int columns, int channels);

}  // namespace derain
