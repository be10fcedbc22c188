// The manifest's parser and the bundle reader on any bytes: whatever they are, the answer is a Manifest or an Error.
#include <cstdlib>
#include <string>
#include <string_view>

#include "derain/bundle.hpp"

namespace {

/// What a reader of an accepted manifest relies on.
void require(bool holds) {
    if (!holds) {
        std::abort();
    }
}

void read_files(const derain::Bundle& bundle) {
    for (const auto& [name, entry] : bundle.manifest().files) {
        require(name.find('/') == std::string::npos && name != "." && name != "..");
        try {
            static_cast<void>(bundle.file(name));
        } catch (const derain::Error& error) {
            require(std::string_view(error.what()).find('\n') == std::string_view::npos);
        }
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    try {
        const auto bundle = derain::Bundle("fuzzed", derain::Manifest::parse(text));
        const derain::Manifest& manifest = bundle.manifest();
        for (const derain::FrameSpec* spec : {&manifest.input, &manifest.output}) {
            std::size_t product = 1;
            for (const std::int64_t side : spec->shape()) {
                product *= static_cast<std::size_t>(side);
            }
            require(product == spec->bytes() && product > 0);
        }
        read_files(bundle);
        for (const auto precision : {derain::Precision::fp32, derain::Precision::fp8}) {
            static_cast<void>(bundle.engines(precision, "tensorrt"));
        }
    } catch (const derain::Error& error) {
        require(std::string_view(error.what()).find('\n') == std::string_view::npos);
    }
    return 0;
}
