#pragma once

#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <string_view>

namespace derain {

/// A JSON value for a message, on one line, at most 60 bytes of it.
std::string shown(const nlohmann::json& value);

/// One object of a JSON document, read key by key; a key that was never asked for is an error.
///
/// Every fault is an Error that names the key with its path, what is expected and the value seen.
class Fields {
   public:
    Fields(const nlohmann::json& object, std::string where);

    /// A value that must be there, or one that may.
    const nlohmann::json& required(const std::string& key);
    const nlohmann::json* optional(const std::string& key);

    std::string text(const std::string& key);
    std::uint64_t count(const std::string& key, std::uint64_t least = 0,
                        std::uint64_t most = std::numeric_limits<std::int64_t>::max());
    /// Absent and null are nothing.
    std::optional<double> number(const std::string& key);
    std::optional<std::uint64_t> optional_count(const std::string& key);
    /// A name without folders: letters, digits and ._+- after a letter or a digit.
    std::string file_name(const std::string& key);
    /// Whatever lies in an object that this runtime has no use for.
    void skip_object(const std::string& key);
    Fields object(const std::string& key);
    /// The array at `key`; an empty one where it is absent and may be.
    const nlohmann::json& array(const std::string& key, bool may_be_absent);

    /// Error for the first key nobody asked for.
    void finish() const;

    /// The key with the path that leads to it, as in `graphs.0.file`.
    [[nodiscard]] std::string path(const std::string& key) const;
    [[noreturn]] void fail(const std::string& key, const std::string& expected) const;

   private:
    const nlohmann::json& object_;
    std::string where_;
    std::set<std::string> asked_;
};

/// Error unless `name` is a file's name without folders; `key` is told in the message.
void check_file_name(const std::string& key, const std::string& name);

}  // namespace derain
