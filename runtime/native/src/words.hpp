#pragma once

#include <array>
#include <string>
#include <string_view>
#include <utility>

#include "derain/error.hpp"

namespace derain {

/// An enumeration's values as the manifest spells them.
template <typename Value, std::size_t count>
using Words = std::array<std::pair<std::string_view, Value>, count>;

template <typename Value, std::size_t count>
std::string_view word_of(const Words<Value, count>& words, Value value) {
    for (const auto& [word, meant] : words) {
        if (meant == value) {
            return word;
        }
    }
    throw Error("enumeration value " + std::to_string(static_cast<int>(value)) + " has no word");
}

/// Error with every word that is known, for one that is not.
template <typename Value, std::size_t count>
Value value_of(const Words<Value, count>& words, std::string_view word) {
    std::string known;
    for (const auto& [name, value] : words) {
        if (name == word) {
            return value;
        }
        known.append(known.empty() ? "" : ", ").append(name);
    }
    throw Error("'" + std::string(word) + "' is unknown, known are: " + known);
}

}  // namespace derain
