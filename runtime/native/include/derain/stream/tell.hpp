/// Where the stream's warnings go.
#pragma once

#include <functional>
#include <string_view>

namespace derain {

/// Called with one line a warning, on the thread that found its cause; empty: they go nowhere.
using Tell = std::function<void(std::string_view)>;

}  // namespace derain
