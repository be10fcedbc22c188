/// The counts of a stream in GStreamer's words.
#pragma once

#include <gst/gst.h>

#include "derain/stream/records.hpp"

namespace derain::gst {

/// Counts, and milliseconds as percentiles; it is the caller's.
GstStructure* stats_of(const Tally& tally);

}  // namespace derain::gst
