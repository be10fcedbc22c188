/// The sources and sinks this build has, by URI.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "derain/frame.hpp"
#include "derain/stream/pipeline.hpp"
#include "derain/stream/sink.hpp"
#include "derain/stream/source.hpp"

namespace derain {

/// Opens `scheme://location` or `scheme:location`; a path without a scheme is `frames` for a folder, else `file`.
///
/// Throws Error for an unknown scheme, and where the location is no such source.
std::unique_ptr<Source> open_source(const std::string& uri, const FrameSpec& spec);

/// Opens `scheme://location`; a path without a scheme is `file` where it has a suffix, else `frames`.
///
/// `fps` is the source's rate, where it has one. Of a `live` source a video file keeps the time at which frames were
/// captured. Throws Error for an unknown scheme, and where the location cannot be such a sink.
std::unique_ptr<Sink> open_sink(const std::string& uri, const FrameSpec& spec, std::optional<double> fps = std::nullopt,
                                bool live = false);

/// What turns a picture of `input` into one of `output`: itself, without a copy, where only the names differ.
ToOutput between(const FrameSpec& input, const FrameSpec& output);

}  // namespace derain
