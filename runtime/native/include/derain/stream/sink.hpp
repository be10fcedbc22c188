/// What every sink of frames does.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include "derain/error.hpp"
#include "derain/frame.hpp"
#include "derain/stream/clock.hpp"

namespace derain {

/// A frame could not be written now, such as on a full disk; the next one may be.
class WriteError : public Error {
   public:
    using Error::Error;
};

/// Takes frames in `spec`'s pixel format, in order. Nothing touches the disk before the first frame.
///
/// A kind fills in `put`, and `close` where it holds something; its destructor then calls `close` too.
class Sink {
   public:
    Sink(std::string location, const FrameSpec& spec) : location_(std::move(location)), spec_(spec) {}
    Sink(const Sink&) = delete;
    Sink& operator=(const Sink&) = delete;
    virtual ~Sink() = default;

    /// Presents one frame, captured at `captured_ns`; `raw`: it goes out as it came. Throws Error where it has another
    /// size than `spec`, WriteError where it could not be written.
    void write(std::span<const std::byte> image, std::int64_t captured_ns = monotonic_ns(), bool raw = false);

    /// Finishes the output: what was written stays readable, also after an error. Closing twice does nothing.
    virtual void close() {}

    [[nodiscard]] const std::string& location() const { return location_; }
    [[nodiscard]] const FrameSpec& spec() const { return spec_; }
    /// Frames written so far.
    [[nodiscard]] std::int64_t written() const { return written_; }
    /// What whoever writes to it should be told, where there is something new.
    [[nodiscard]] std::optional<std::string> take_warning() { return std::exchange(warning_, std::nullopt); }

   protected:
    virtual void put(std::span<const std::byte> image, std::int64_t captured_ns, bool raw) = 0;

    void warn(std::string warning) { warning_ = std::move(warning); }

   private:
    std::string location_;
    FrameSpec spec_;
    std::int64_t written_ = 0;
    std::optional<std::string> warning_;
};

}  // namespace derain
