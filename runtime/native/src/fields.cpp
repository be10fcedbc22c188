#include "fields.hpp"

#include <algorithm>
#include <utility>

#include "derain/error.hpp"

namespace derain {

using nlohmann::json;

namespace {

std::uint64_t whole(const Fields& fields, const std::string& key, const json& value, std::uint64_t least,
                    std::uint64_t most) {
    if (!value.is_number_integer()) {
        fields.fail(key, "should be a whole number");
    }
    if (!value.is_number_unsigned() || value.get<std::uint64_t>() < least) {
        fields.fail(key, "should be " + std::to_string(least) + " or more");
    }
    if (value.get<std::uint64_t>() > most) {
        fields.fail(key, "should be " + std::to_string(most) + " or less");
    }
    return value.get<std::uint64_t>();
}

}  // namespace

std::string shown(const json& value) {
    std::string text = value.dump(-1, ' ', true, json::error_handler_t::replace);
    if (text.size() > 60) {
        text.replace(57, std::string::npos, "...");
    }
    return text;
}

void check_file_name(const std::string& key, const std::string& name) {
    const auto alphanumeric = [](char c) {
        return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
    };
    const auto allowed = [&](char c) {
        return alphanumeric(c) || std::string_view("._+-").find(c) != std::string_view::npos;
    };
    if (name.empty() || !alphanumeric(name.front()) || !std::ranges::all_of(name, allowed)) {
        throw Error(key + ": should be a file's name without folders, got " + shown(name));
    }
}

Fields::Fields(const json& object, std::string where) : object_(object), where_(std::move(where)) {
    if (!object.is_object()) {
        throw Error((where_.empty() ? "the manifest" : where_) + ": should be an object, got " + shown(object));
    }
}

const json* Fields::optional(const std::string& key) {
    asked_.insert(key);
    const auto found = object_.find(key);
    return found == object_.end() ? nullptr : &*found;
}

const json& Fields::required(const std::string& key) {
    const json* value = optional(key);
    if (value == nullptr) {
        throw Error(path(key) + ": missing, expected a value");
    }
    return *value;
}

std::string Fields::text(const std::string& key) {
    const json& value = required(key);
    if (!value.is_string()) {
        fail(key, "should be a string");
    }
    return value.get<std::string>();
}

std::uint64_t Fields::count(const std::string& key, std::uint64_t least, std::uint64_t most) {
    return whole(*this, key, required(key), least, most);
}

std::optional<std::uint64_t> Fields::optional_count(const std::string& key) {
    const json* value = optional(key);
    if (value == nullptr || value->is_null()) {
        return std::nullopt;
    }
    return whole(*this, key, *value, 0, std::numeric_limits<std::int64_t>::max());
}

std::optional<double> Fields::number(const std::string& key) {
    const json* value = optional(key);
    if (value == nullptr || value->is_null()) {
        return std::nullopt;
    }
    if (!value->is_number()) {
        fail(key, "should be a number");
    }
    return value->get<double>();
}

std::string Fields::file_name(const std::string& key) {
    std::string name = text(key);
    check_file_name(path(key), name);
    return name;
}

void Fields::skip_object(const std::string& key) {
    const json* value = optional(key);
    if (value != nullptr && !value->is_object()) {
        fail(key, "should be an object");
    }
}

Fields Fields::object(const std::string& key) { return {required(key), path(key)}; }

const json& Fields::array(const std::string& key, bool may_be_absent) {
    static const json empty = json::array();
    const json* value = optional(key);
    if (value == nullptr && may_be_absent) {
        return empty;
    }
    if (!required(key).is_array()) {
        fail(key, "should be an array");
    }
    return *value;
}

void Fields::finish() const {
    for (const auto& [key, value] : object_.items()) {
        if (!asked_.contains(key)) {
            throw Error(path(key) + ": unknown key (its value is " + shown(value) + ")");
        }
    }
}

std::string Fields::path(const std::string& key) const { return where_.empty() ? key : where_ + "." + key; }

void Fields::fail(const std::string& key, const std::string& expected) const {
    throw Error(path(key) + ": " + expected + ", got " + shown(object_.at(key)));
}

}  // namespace derain
