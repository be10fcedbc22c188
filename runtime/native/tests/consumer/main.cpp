// Built against an installed libderain: opens a bundle that is not there through both interfaces, and a ring.
#include <derain/derain.h>

#include <derain/bundle.hpp>
#include <derain/stream/shared_frames.hpp>
#include <iostream>

int main() {
    derain_stream* stream = nullptr;
    const derain_options options{sizeof options, "nowhere", "openvino", "fp32", DERAIN_EVERY, 0, 0, nullptr, nullptr};
    const bool refused = derain_open(&options, &stream) == DERAIN_FAULT && stream == nullptr;
    try {
        static_cast<void>(derain::SharedFrames::attach("derain-nowhere", {.width = 64, .height = 48}));
        return 1;
    } catch (const derain::Error& error) {
        std::cout << error.what() << '\n';
    }
    try {
        static_cast<void>(derain::Bundle::load("nowhere"));
    } catch (const derain::Error& error) {
        std::cout << derain_version() << ": " << error.what() << '\n';
        return refused && error.what() == std::string(derain_error()) ? 0 : 1;
    }
    return 1;
}
