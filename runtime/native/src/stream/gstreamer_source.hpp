/// `gst:PIPELINE`: the frames of a GStreamer pipeline.
#pragma once

#include <memory>
#include <string>

#include "derain/stream/source.hpp"

namespace derain {

/// How long a pipeline may give no frame until it counts as away.
struct GstreamerPatience {
    int first_ms = 5000;
    int next_ms = 3000;
};

/// A pipeline's frames as BGR, without end: from its appsink, or, where it has none, from one that holds the newest
/// frame only. Those of a live pipeline are as old as its clock says, others were captured when they are read.
///
/// Error, in one line with GStreamer's own reason and without credentials, where it does not start, and from `next`
/// where it fails, ends or stalls.
std::unique_ptr<Source> make_gstreamer_source(const std::string& pipeline, const FrameSpec& spec,
                                              const GstreamerPatience& patience = {});

}  // namespace derain
