#pragma once

#include <stdexcept>
#include <string>

namespace derain {

/// Every fault of this library. The message is one line: the value seen, the value expected, the mend.
///
/// Values come from files and other libraries, so control characters in it become spaces.
class Error : public std::runtime_error {
   public:
    explicit Error(std::string message);
};

/// What the exception that a `catch (...)` handles says, until the handler ends: what an engine or a source is made of
/// may throw anything.
const char* what_was_caught() noexcept;

}  // namespace derain
