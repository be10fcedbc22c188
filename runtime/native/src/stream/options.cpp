#include "options.hpp"

#include <algorithm>
#include <utility>

namespace derain {

Options::Options(std::string name, std::string_view query, std::initializer_list<std::string_view> known)
    : name_(std::move(name)) {
    while (!query.empty()) {
        const auto part = query.substr(0, query.find('&'));
        query.remove_prefix(std::min(part.size() + 1, query.size()));
        const auto key = part.substr(0, part.find('='));
        if (std::ranges::find(known, key) == known.end()) {
            std::string keys;
            for (const auto one : known) {
                keys += (keys.empty() ? "" : ", ") + std::string(one);
            }
            throw Error(name_ + ": " + std::string(key) + ": unknown key; known keys: " + keys);
        }
        values_[std::string(key)] = part.substr(std::min(key.size() + 1, part.size()));
    }
}

}  // namespace derain
