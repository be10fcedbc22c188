/// Frames between two processes of one machine: a ring of slots in POSIX shared memory, `/dev/shm/NAME`.
///
/// | offset | bytes | what                                                         |
/// | ------ | ----- | ------------------------------------------------------------ |
/// | 0      | 8     | `DERAINSH`                                                   |
/// | 8      | 4     | version, 1                                                   |
/// | 12     | 4     | slots                                                        |
/// | 16     | 8     | width and height                                             |
/// | 24     | 8     | pixel format, as in the manifest, padded with zeros          |
/// | 32     | 8     | number of frames published so far                            |
/// | 40     | 8     | 1 once the writer has closed                                 |
/// | 48     | 8     | 1 where the writer holds a lock (flock) while it lives       |
/// | 56     | 8     | the writer's frames per second times 1000, 0 where unknown   |
/// | 64     | slots | each: sequence, time, raw (8 each), zeros (40), the bytes    |
///
/// All integers are little-endian and unsigned; a slot is padded to 64 bytes; times are CLOCK_MONOTONIC in ns, which
/// all processes of a machine share. Frame n is in slot n modulo slots. A slot's sequence is odd while it is written
/// and 2·(n + 1) when frame n is in it (a seqlock): a reader copies, looks again, and drops what changed meanwhile.
/// `raw` is 1 where the frame could not be derained in time and is as the camera gave it. The writer never waits for a
/// reader, and never makes the file shorter: it would kill those who read. A ring whose writer held a lock and lives no
/// more gives way to a new writer, so that a process that was killed can be started again. Python's
/// runtime/shared_frames.py reads and writes the same.
///
/// The order of loads and stores is that of Boehm, "Can seqlocks get along with programming language memory models?"
/// (MSPC 2012): every shared word is accessed atomically, relaxed, between fences, so it holds on ARM too.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>

#include "derain/frame.hpp"

namespace derain {

/// One end of a ring; `create` is the writer's, `attach` a reader's. Each end is for one thread.
class SharedFrames {
   public:
    struct Newest {
        std::uint64_t number;
        std::int64_t captured_ns;
        bool raw;
    };

    /// Makes the ring of a writer of `fps` frames a second, if it has a rate of its own; Error where there is one of
    /// that name, and where memory is short.
    static SharedFrames create(const std::string& name, const FrameSpec& spec,
                               std::optional<double> fps = std::nullopt);
    /// Opens a ring; Error where there is none yet, its writer died, or its frames are not `spec`'s.
    static SharedFrames attach(const std::string& name, const FrameSpec& spec);

    SharedFrames(SharedFrames&& other) noexcept;
    SharedFrames(const SharedFrames&) = delete;
    SharedFrames& operator=(const SharedFrames&) = delete;
    SharedFrames& operator=(SharedFrames&&) = delete;
    /// Lets go; a writer marks the ring as closed and removes its name.
    ~SharedFrames();

    /// Writes a frame over the oldest; Error where it has another size than `spec`.
    void publish(std::span<const std::byte> image, std::int64_t captured_ns, bool raw = false);
    /// Copies the newest frame into `image`; nothing, and `image` holds anything, where there is none or it was
    /// overwritten. Error where `image` has another size than `spec`.
    [[nodiscard]] std::optional<Newest> newest(std::span<std::byte> image) const;
    /// Waits until more than `than` frames were published, looking twice a millisecond; false where none came.
    [[nodiscard]] bool wait_for_newer(std::uint64_t than, double timeout_s) const;

    /// How many frames were written so far.
    [[nodiscard]] std::uint64_t published() const;
    /// The writer's frames a second, to a thousandth, where it has a rate and told it.
    [[nodiscard]] std::optional<double> fps() const;
    /// Whether the writer has closed.
    [[nodiscard]] bool closed() const;

   private:
    SharedFrames(std::filesystem::path path, const FrameSpec& spec, std::span<std::byte> memory, int lock = -1);
    [[nodiscard]] std::uint64_t& word(std::size_t at) const;
    [[nodiscard]] std::size_t slot_of(std::uint64_t number) const;

    std::filesystem::path path_;
    std::size_t bytes_;
    std::span<std::byte> memory_;  // mapped; empty once moved from
    int lock_;                     // a writer's descriptor; a reader has none
};

}  // namespace derain
