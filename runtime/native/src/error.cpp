#include "derain/error.hpp"

#include <algorithm>
#include <exception>
#include <utility>

namespace derain {

namespace {

std::string one_line(std::string text) {
    std::ranges::replace_if(
        text, [](unsigned char c) { return c < ' ' || c == 127; }, ' ');
    return text;
}

}  // namespace

Error::Error(std::string message) : std::runtime_error(one_line(std::move(message))) {}

const char* what_was_caught() noexcept {
    try {
        throw;
    } catch (const std::exception& error) {
        return error.what();
    } catch (...) {
        return "an exception of unknown type: report it";
    }
}

}  // namespace derain
