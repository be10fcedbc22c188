#include <algorithm>
#include <concepts>
#include <set>

#include "derain/bundle.hpp"
#include "fields.hpp"
#include "words.hpp"

namespace derain {

using nlohmann::json;

namespace {

constexpr Words<Precision, 4> precision_words{
    {{"fp32", Precision::fp32}, {"fp16", Precision::fp16}, {"int8", Precision::int8}, {"fp8", Precision::fp8}}};

constexpr int deepest = 100;                   // levels of nesting; a model's configuration has a few
constexpr std::uint64_t largest_side = 65535;  // of a frame, so that its size in bytes is far from any overflow

/// A word of an enumeration, told with its key where it is none.
template <std::invocable<std::string_view> Parse>
auto word(Fields& fields, const std::string& key, Parse parse) {
    const std::string text = fields.text(key);
    try {
        return parse(text);
    } catch (const Error& error) {
        throw Error(fields.path(key) + ": " + error.what());
    }
}

std::string one_of(Fields& fields, const std::string& key, const std::set<std::string>& words,
                   const std::string& absent) {
    if (fields.optional(key) == nullptr) {
        return absent;
    }
    std::string text = fields.text(key);
    if (!words.contains(text)) {
        fields.fail(key, "should be '" + *words.begin() + "' or '" + *words.rbegin() + "'");
    }
    return text;
}

FrameSpec frame_spec(Fields fields) {
    FrameSpec spec;
    spec.tensor = fields.text("tensor");
    spec.width = static_cast<int>(fields.count("width", 1, largest_side));
    spec.height = static_cast<int>(fields.count("height", 1, largest_side));
    if (fields.optional("pixels") != nullptr) {
        spec.pixels = word(fields, "pixels", parse_pixels);
    }
    spec.matrix = one_of(fields, "matrix", {"bt601", "bt709"}, spec.matrix);
    spec.range = one_of(fields, "range", {"full", "limited"}, spec.range);
    fields.finish();
    const bool halves_width = spec.pixels == Pixels::nv12 || spec.pixels == Pixels::uyvy;
    if (halves_width && spec.width % 2 != 0) {
        fields.fail("width", "should be even for " + std::string(to_string(spec.pixels)));
    }
    if (spec.pixels == Pixels::nv12 && spec.height % 2 != 0) {
        fields.fail("height", "should be even for nv12");
    }
    return spec;
}

ModelInfo model_info(Fields fields) {
    ModelInfo model;
    model.name = fields.text("name");
    model.parameters = fields.count("parameters");
    if (fields.optional("weights") != nullptr) {
        model.weights = fields.file_name("weights");
    }
    fields.skip_object("config");
    fields.finish();
    return model;
}

UnrollInfo unroll_info(Fields fields) {
    UnrollInfo unroll;
    unroll.encoder_steps = fields.count("encoder_steps", 1);
    unroll.decoder_steps = fields.count("decoder_steps", 1);
    unroll.macs = fields.count("macs");
    unroll.macs_naive = fields.count("macs_naive");
    fields.finish();
    return unroll;
}

GraphEntry graph_entry(Fields fields) {
    GraphEntry graph;
    graph.precision = word(fields, "precision", parse_precision);
    graph.file = fields.file_name("file");
    fields.finish();
    return graph;
}

EngineEntry engine_entry(Fields fields) {
    EngineEntry engine;
    engine.file = fields.file_name("file");
    engine.precision = word(fields, "precision", parse_precision);
    engine.api = fields.text("api");
    engine.api_version = fields.text("api_version");
    engine.arch = fields.text("arch");
    fields.skip_object("options");
    fields.finish();
    return engine;
}

Quality quality_entry(Fields fields) {
    Quality quality;
    quality.frames = fields.text("frames");
    quality.precision = word(fields, "precision", parse_precision);
    quality.psnr_rgb = fields.number("psnr_rgb");
    quality.ssim_rgb = fields.number("ssim_rgb");
    quality.psnr_vs_fp32 = fields.number("psnr_vs_fp32");
    quality.max_abs_diff = fields.optional_count("max_abs_diff");
    fields.finish();
    return quality;
}

FileEntry file_entry(Fields fields) {
    FileEntry file;
    file.sha256 = fields.text("sha256");
    const auto hexadecimal = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); };
    if (file.sha256.size() != 64 || !std::ranges::all_of(file.sha256, hexadecimal)) {
        fields.fail("sha256", "should be 64 lower-case hexadecimal digits");
    }
    file.bytes = fields.count("bytes");
    fields.finish();
    return file;
}

template <std::invocable<Fields> Read>
auto entries(Fields& fields, const std::string& key, bool may_be_absent, Read read) {
    std::vector<std::invoke_result_t<Read, Fields>> list;
    for (const json& value : fields.array(key, may_be_absent)) {
        list.push_back(read(Fields(value, fields.path(key) + "." + std::to_string(list.size()))));
    }
    return list;
}

std::map<std::string, FileEntry> file_entries(const json& files) {
    std::map<std::string, FileEntry> entries;
    if (!files.is_object()) {
        throw Error("files: should be an object, got " + shown(files));
    }
    for (const auto& [name, value] : files.items()) {
        check_file_name("files", name);
        entries.emplace(name, file_entry(Fields(value, "files." + name)));
    }
    return entries;
}

/// Stops at nesting that no manifest has: showing or destroying a value takes a stack as deep as it is.
bool refuse_depth(int depth, json::parse_event_t /*event*/, const json& /*value*/) {
    if (depth > deepest) {
        throw Error("nested more than " + std::to_string(deepest) + " deep, expected a manifest");
    }
    return true;
}

void check_precisions(const std::vector<GraphEntry>& graphs) {
    std::set<Precision> seen;
    for (const GraphEntry& graph : graphs) {
        if (!seen.insert(graph.precision).second) {
            throw Error("graphs: one graph a precision expected, got two in " +
                        std::string(to_string(graph.precision)));
        }
    }
}

void check_files(const Manifest& manifest) {
    std::set<std::string> named{manifest.model.weights};
    for (const GraphEntry& graph : manifest.graphs) {
        named.insert(graph.file);
    }
    for (const EngineEntry& engine : manifest.engines) {
        named.insert(engine.file);
    }
    for (const std::string& name : named) {
        if (!manifest.files.contains(name)) {
            throw Error("files: no entry for " + name + ", which the manifest names");
        }
    }
    for (const auto& [name, entry] : manifest.files) {
        if (!named.contains(name)) {
            throw Error("files: " + name + " is listed, but no model, graph or engine names it");
        }
    }
}

}  // namespace

std::string_view to_string(Precision precision) { return word_of(precision_words, precision); }

Precision parse_precision(std::string_view word) { return value_of(precision_words, word); }

Manifest Manifest::parse(std::string_view text) {
    if (text.starts_with("\xEF\xBB\xBF")) {  // which the JSON library skips, and the Python runtime refuses
        throw Error("not JSON (it begins with a byte-order mark)");
    }
    json document;
    try {
        document = json::parse(text, refuse_depth);
    } catch (const json::exception& error) {
        throw Error(std::string("not JSON (") + error.what() + ")");
    }
    Fields fields(document, "");
    Manifest manifest;
    if (fields.optional("schema_version") != nullptr) {
        manifest.schema_version = fields.count("schema_version", 1, 1);
    }
    manifest.derain_version = fields.text("derain_version");
    manifest.model = model_info(fields.object("model"));
    manifest.unroll = unroll_info(fields.object("unroll"));
    manifest.input = frame_spec(fields.object("input"));
    manifest.output = frame_spec(fields.object("output"));
    manifest.graphs = entries(fields, "graphs", false, graph_entry);
    manifest.engines = entries(fields, "engines", true, engine_entry);
    manifest.quality = entries(fields, "quality", true, quality_entry);
    manifest.files = file_entries(fields.required("files"));
    fields.finish();
    check_precisions(manifest.graphs);
    check_files(manifest);
    return manifest;
}

}  // namespace derain
