#include "derain/stream/redact.hpp"

#include <regex>

namespace derain {

std::string redact(const std::string& uri) {
    static const std::regex user_info(R"re(://[^\s"'!]*@)re");
    static const std::regex named(
        R"re(([\w-]*(?:user|usr|pass|pw|token|key|auth|secret)[\w-]*)=("[^"]*"|'[^']*'|[^&\s!;,]*))re",
        std::regex::ECMAScript | std::regex::icase);
    return std::regex_replace(std::regex_replace(uri, user_info, "://***@"), named, "$1=***");
}

}  // namespace derain
