#include "derain/bundle.hpp"

#include <fstream>
#include <iterator>
#include <system_error>
#include <utility>

#include "sha256.hpp"

namespace derain {

namespace {

constexpr const char* manifest_name = "manifest.json";

std::string again(const std::filesystem::path& path) {
    return "export it again with `derain export ... --out " + path.string() + "`";
}

std::string read_text(const std::filesystem::path& path) {
    std::ifstream stream(path, std::ios::binary);
    std::string text{std::istreambuf_iterator<char>(stream), {}};
    if (stream.bad() || !stream.is_open()) {
        throw Error(path.string() + ": cannot be read: see its permissions");
    }
    return text;
}

/// Whether there is such a file or folder; Error where that cannot be seen.
bool is(std::filesystem::file_type type, const std::filesystem::path& path) {
    std::error_code fault;
    const auto seen = std::filesystem::status(path, fault).type();
    if (fault && seen != std::filesystem::file_type::not_found) {
        throw Error(path.string() + ": cannot be read (" + fault.message() + "): see its permissions and links");
    }
    return seen == type;
}

template <typename Range, typename Name>
std::string joined(const Range& range, Name name) {
    std::string text;
    for (const auto& item : range) {
        text.append(text.empty() ? "" : ", ").append(name(item));
    }
    return text.empty() ? "none" : text;
}

}  // namespace

struct Bundle::State {
    State(std::filesystem::path where, Manifest what) : path(std::move(where)), manifest(std::move(what)) {}

    const std::filesystem::path path;
    const Manifest manifest;
};

Bundle::Bundle(std::filesystem::path path, Manifest manifest)
    : state_(std::make_shared<State>(std::move(path), std::move(manifest))) {}

const std::filesystem::path& Bundle::path() const { return state_->path; }

const Manifest& Bundle::manifest() const { return state_->manifest; }

Bundle Bundle::load(const std::filesystem::path& path) {
    const std::filesystem::path name = path / manifest_name;
    if (!is(std::filesystem::file_type::regular, name)) {
        const bool exists = !is(std::filesystem::file_type::not_found, path);
        throw Error(path.string() + ": " + (exists ? "has no manifest.json, so it is no bundle" : "no such bundle") +
                    ": make one with `derain export ... --out " + path.string() + "`");
    }
    const std::string text = read_text(name);
    try {
        return {path, Manifest::parse(text)};
    } catch (const Error& error) {
        throw Error(name.string() + ": " + error.what() + ": " + again(path));
    }
}

std::filesystem::path Bundle::file(const std::string& name) const {
    std::filesystem::path path = state_->path / name;
    const auto& files = state_->manifest.files;
    const auto entry = files.find(name);
    if (entry == files.end()) {
        const std::string known = joined(files, [](const auto& file) { return file.first; });
        throw Error(path.string() + ": not in the manifest, which names " + known);
    }
    const FileEntry& expected = entry->second;
    if (!is(std::filesystem::file_type::regular, path)) {
        throw Error(path.string() + ": missing, though the manifest names it: " + again(state_->path));
    }
    std::error_code fault;
    if (const auto size = std::filesystem::file_size(path, fault); !fault && size != expected.bytes) {
        throw Error(path.string() + ": " + std::to_string(size) + " bytes, the manifest says " +
                    std::to_string(expected.bytes) + ": " + again(state_->path));
    }
    if (const std::string digest = sha256_of(path); digest != expected.sha256) {
        throw Error(path.string() + ": SHA-256 is " + digest.substr(0, 12) + "..., the manifest says " +
                    expected.sha256.substr(0, 12) + "...: " + again(state_->path));
    }
    return path;
}

std::filesystem::path Bundle::graph(Precision precision) const {
    for (const GraphEntry& entry : manifest().graphs) {
        if (entry.precision == precision) {
            return file(entry.file);
        }
    }
    const std::string wanted(to_string(precision));
    const std::string present = joined(manifest().graphs, [](const auto& graph) { return to_string(graph.precision); });
    // Export would replace the bundle with all that was calibrated and built.
    const bool calibrated = precision != Precision::fp32;
    const std::string mend = calibrated
                                 ? "`derain calibrate " + path().string() + " --precision " + wanted + " --frames ...`"
                                 : "`derain export ...`";
    throw Error(path().string() + ": no " + wanted + " graph, the bundle has " + present + ": make one with " + mend);
}

std::vector<EngineEntry> Bundle::engines(Precision precision, std::string_view api) const {
    std::vector<EngineEntry> built;
    for (const EngineEntry& entry : manifest().engines) {
        if (entry.precision == precision && entry.api == api) {
            built.push_back(entry);
        }
    }
    return built;
}

}  // namespace derain
