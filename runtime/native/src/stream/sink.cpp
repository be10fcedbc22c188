#include "derain/stream/sink.hpp"

#include <string>

namespace derain {

void Sink::write(std::span<const std::byte> image, std::int64_t captured_ns, bool raw) {
    if (image.size() != spec_.bytes()) {
        throw Error(location_ + ": image has " + std::to_string(image.size()) + " bytes, expected " +
                    std::to_string(spec_.bytes()) + " (" + std::to_string(spec_.width) + "x" +
                    std::to_string(spec_.height) + " " + std::string(to_string(spec_.pixels)) + ")");
    }
    put(image, captured_ns, raw);
    ++written_;
}

}  // namespace derain
