#include "derain/stream/streams.hpp"

#include <filesystem>
#include <map>

#include "derain/error.hpp"
#include "derain/stream/redact.hpp"
#include "kinds.hpp"

namespace derain {

namespace {

const std::map<std::string, MakeSource*>& source_kinds() {
    static const std::map<std::string, MakeSource*> kinds{
        {"file", video_file_source},     {"frames", image_folder_source}, {"gst", gst_source},
        {"rtsp", network_camera_source}, {"shm", shared_memory_source},   {"test", pattern_source},
        {"v4l2", camera_source},
    };
    return kinds;
}

const std::map<std::string, MakeSink*>& sink_kinds() {
    static const std::map<std::string, MakeSink*> kinds{
        {"file", video_file_sink}, {"frames", png_folder_sink}, {"null", null_sink}, {"shm", shared_memory_sink}};
    return kinds;
}

template <typename Kinds>
auto find(const Kinds& kinds, const char* what, const std::string& scheme, const std::string& uri) {
    if (const auto kind = kinds.find(scheme); kind != kinds.end()) {
        return kind->second;
    }
    std::string known;
    for (const auto& [name, kind] : kinds) {
        known += (known.empty() ? "" : ", ") + name;
    }
    throw Error(std::string(what) + " " + redact(uri) + ": scheme '" + redact(scheme) +
                "' is unknown, known are: " + known);
}

}  // namespace

std::unique_ptr<Source> open_source(const std::string& uri, const FrameSpec& spec) {
    const auto colon = uri.find(':');
    std::string scheme = uri.substr(0, colon);
    std::string location = colon == std::string::npos ? "" : uri.substr(colon + 1);
    if (colon == std::string::npos || (!source_kinds().contains(scheme) && uri.find("://") == std::string::npos)) {
        scheme = std::filesystem::is_directory(uri) ? "frames" : "file";
        location = uri;
    }
    const auto make = find(source_kinds(), "source", scheme, uri);
    return make(location.starts_with("//") ? location.substr(2) : location, spec);
}

std::unique_ptr<Sink> open_sink(const std::string& uri, const FrameSpec& spec, std::optional<double> fps, bool live) {
    const auto colon = uri.find(':');
    std::string scheme = uri.substr(0, colon);
    std::string location = colon == std::string::npos ? "" : uri.substr(colon + 1);
    if (colon == std::string::npos || (!sink_kinds().contains(scheme) && uri.find("://") == std::string::npos)) {
        const bool file = std::filesystem::path(uri).has_extension();
        return find(sink_kinds(), "sink", file ? "file" : "frames", uri)(uri, spec, fps, live);
    }
    const auto make = find(sink_kinds(), "sink", scheme, uri);
    return make(location.starts_with("//") ? location.substr(2) : location, spec, fps, live);
}

}  // namespace derain
