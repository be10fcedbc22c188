/// URIs as they may be shown: without the credentials in them.
#pragma once

#include <string>

namespace derain {

/// `rtsp://me:secret@host/x?pwd=1` as `rtsp://***@host/x?pwd=***`; also inside a GStreamer pipeline.
///
/// It would rather hide too much: everything from `://` to the last `@` of a word.
std::string redact(const std::string& uri);

}  // namespace derain
