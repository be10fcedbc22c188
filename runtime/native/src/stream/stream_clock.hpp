/// How old a network camera's frames are, told by the stream's own times.
#pragma once

#include <cstdint>
#include <optional>

namespace derain {

/// Times of a stream's clock as times of ours.
///
/// A frame may have waited in a buffer on its way. So the frame that came fastest is taken as fresh, and another is
/// older by as much as it came later than the stream's clock says.
class StreamClock {
   public:
    /// When the frame that has come at `came_ns` was captured; `stamp_ns` is its time by the stream's clock.
    ///
    /// `came_ns` itself where the stream has no times, where they begin anew, or where they leap by ten seconds.
    std::int64_t captured_ns(std::int64_t stamp_ns, std::int64_t came_ns);

   private:
    std::int64_t stamp_ns_ = 0;
    std::optional<double> offset_ns_;  // from the stream's times to ours
};

}  // namespace derain
