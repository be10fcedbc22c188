/// What makes each kind of source and sink: one file a kind, one line of streams.cpp each.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "derain/stream/sink.hpp"
#include "derain/stream/source.hpp"

namespace derain {

using MakeSource = std::unique_ptr<Source>(const std::string& location, const FrameSpec& spec);
using MakeSink = std::unique_ptr<Sink>(const std::string& location, const FrameSpec& spec, std::optional<double> fps,
                                       bool live);

MakeSource video_file_source, image_folder_source, pattern_source, shared_memory_source, camera_source;
MakeSource network_camera_source, gst_source;
MakeSink video_file_sink, png_folder_sink, null_sink, shared_memory_sink;

}  // namespace derain
