/// `gst:PIPELINE` in a build without GStreamer.
#include "derain/error.hpp"
#include "derain/stream/redact.hpp"
#include "kinds.hpp"

namespace derain {

std::unique_ptr<Source> gst_source(const std::string& location, const FrameSpec&) {
    throw Error(redact("gst:" + location) +
                ": this build has no GStreamer: install libgstreamer-plugins-base1.0-dev and build it again");
}

}  // namespace derain
