#include "stream_support.hpp"

#include <random>

namespace derain::testing {

std::string fault(const std::function<void()>& act) {
    try {
        act();
    } catch (const Error& error) {
        return error.what();
    }
    return "";
}

std::vector<Picture> noise(std::size_t count, std::size_t bytes) {
    std::mt19937 random(0);
    const auto pool = Pool::make(bytes, count);
    std::vector<Picture> pictures;
    for (std::size_t made = 0; made < count; ++made) {
        pictures.push_back(pool->take());
        std::ranges::generate(pictures.back().writable(), [&] { return static_cast<std::byte>(random()); });
    }
    return pictures;
}

}  // namespace derain::testing
