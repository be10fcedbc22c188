/// What became of a frame, said on its buffer.
#pragma once

#include <gst/gst.h>

#include <optional>

#include "derain/stream/records.hpp"

namespace derain::gst {

/// Makes "DerainMeta" known to GStreamer, before the first `mark`; older than 1.20 it has none, and both do nothing.
void register_meta();

/// Says in the buffer's DerainMeta whether it is `derained` (boolean) and, where it is raw, `why` (string).
void mark(GstBuffer& buffer, std::optional<Why> why);

}  // namespace derain::gst
