/// The `key=value&key=value` behind a URI's question mark.
#pragma once

#include <charconv>
#include <initializer_list>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "derain/error.hpp"

namespace derain {

/// Reads options one by one; Error for an unknown key or a value that is no number in its range.
class Options {
   public:
    /// `name` is what an Error calls them; every key but the `known` ones is refused.
    Options(std::string name, std::string_view query, std::initializer_list<std::string_view> known);

    /// A number of at least `least`; nothing where it is not given.
    template <typename Number>
    [[nodiscard]] std::optional<Number> number(const std::string& key, Number least) const {
        const auto entry = values_.find(key);
        if (entry == values_.end()) {
            return std::nullopt;
        }
        const auto& text = entry->second;
        Number value{};
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
        const bool in_range = value >= least && value <= std::numeric_limits<Number>::max();  // and no NaN
        if (error != std::errc() || end != text.data() + text.size() || !in_range) {
            throw Error(name_ + ": " + key + " is '" + text + "', expected a number of at least " +
                        std::to_string(least));
        }
        return value;
    }

   private:
    std::string name_;
    std::map<std::string, std::string> values_;
};

}  // namespace derain
