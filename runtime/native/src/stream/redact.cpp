#include "derain/stream/redact.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <string_view>

namespace derain {

// By hand: a regular expression's time grows with the square of a token's length, and its stack with the length.

namespace {

constexpr std::array<std::string_view, 8> secrets{"user", "usr", "pass", "pw", "token", "key", "auth", "secret"};
constexpr std::string_view space = " \t\n\v\f\r";

bool in_name(unsigned char letter) { return std::isalnum(letter) != 0 || letter == '_' || letter == '-'; }

bool is_secret(std::string_view name) {
    std::string lower(name);
    std::ranges::transform(lower, lower.begin(), [](unsigned char letter) { return std::tolower(letter); });
    return std::ranges::any_of(secrets, [&lower](auto word) { return lower.find(word) != std::string::npos; });
}

/// `text` up to where one of `ends` is.
std::string_view before_any(std::string_view text, const std::string& ends) {
    return text.substr(0, text.find_first_of(ends));
}

/// What a text behind a `=` begins with: a quoted value, or all before what separates it from the next.
std::string_view value_of(std::string_view text) {
    if (text.starts_with('"') || text.starts_with('\'')) {
        if (const auto quote = text.find(text.front(), 1); quote != std::string_view::npos) {
            return text.substr(0, quote + 1);
        }
    }
    return before_any(text, std::string(space) + "&!;,");
}

std::string without_user_info(std::string_view text) {
    constexpr std::string_view mark = "://";
    std::string shown;
    for (auto at = text.find(mark); at != std::string_view::npos; at = text.find(mark)) {
        shown += text.substr(0, at + mark.size());
        text.remove_prefix(at + mark.size());
        const auto host = before_any(text, std::string(space) + "\"'!").rfind('@');
        if (host != std::string_view::npos) {
            shown += "***";
            text.remove_prefix(host);
        }
    }
    return shown.append(text);
}

std::string without_named(std::string_view text) {
    std::string shown;
    for (auto at = text.find('='); at != std::string_view::npos; at = text.find('=')) {
        auto name = at;
        while (name > 0 && in_name(static_cast<unsigned char>(text[name - 1]))) {
            --name;
        }
        const bool secret = is_secret(text.substr(name, at - name));
        shown += text.substr(0, at + 1);
        text.remove_prefix(at + 1);
        if (secret) {
            shown += "***";
            text.remove_prefix(value_of(text).size());
        }
    }
    return shown.append(text);
}

}  // namespace

std::string redact(const std::string& uri) { return without_named(without_user_info(uri)); }

}  // namespace derain
