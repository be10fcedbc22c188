/// How long to wait before the next attempt, and when to stop trying.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace derain {

/// Delays that double with each attempt of the last minute, from 0.1 s up to 5 s.
///
/// With `most`, that many attempts in a minute and no more; without it the attempts never end.
class BackOff {
   public:
    explicit BackOff(std::optional<std::size_t> most = std::nullopt) : most_(most) {}

    /// Counts an attempt and gives the seconds to wait before it; nothing where `most` are spent.
    std::optional<double> next_s(std::int64_t now_ns);

   private:
    std::optional<std::size_t> most_;
    std::vector<std::int64_t> attempts_;
};

}  // namespace derain
