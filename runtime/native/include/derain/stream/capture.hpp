/// The source's own thread, and what happens when a camera fails.
///
/// A file that fails ends the run with its error. A live source that has delivered a frame once is never given up: when
/// it throws (unplugged) or delivers nothing for `stall_s` (stalled), it is reopened with back-off. A thread that hangs
/// in a stalled read cannot be stopped: it is left behind, its source closed, which ends the reads that look for it,
/// and its frames ignored. Once eight hang, it is opened again when one ends. While a frame waits for room in the queue
/// the source is not silent. One that is silent from the start is told of once and waited for.
#pragma once

#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "derain/stream/clock.hpp"
#include "derain/stream/queue.hpp"
#include "derain/stream/source.hpp"
#include "derain/stream/tell.hpp"

namespace derain {

/// How long the end of a run waits for a read to return, before its source is closed and its thread left behind.
inline constexpr double read_patience_s = 1;

/// Without a frame until a live source counts as stalled: longer than a camera needs to change its exposure. One whose
/// rate is known has at least four frames' time, but no more than a minute for it.
inline constexpr double stall_s = 2;

/// Without its first frame until a live source is told of or, where it was opened again, counts as stalled, unless a
/// stall takes longer: a camera needs more time to start.
inline constexpr double first_frame_s = 5;

/// Reads a source into a queue on a thread of its own, and closes the queue when the source ends.
class Capture {
   public:
    Capture(std::shared_ptr<Source> source, std::shared_ptr<FrameQueue> queue, double stalled_after_s = stall_s,
            Tell tell = nullptr, Clock clock = monotonic_ns, double patience_s = read_patience_s);
    Capture(const Capture&) = delete;
    Capture& operator=(const Capture&) = delete;
    /// Stops, and waits `patience_s` for a read to return; then its source is closed and its thread left behind.
    ~Capture();

    /// Delivers nothing more; the queue is closed.
    void stop();
    /// Closes a stalled live source and leaves it behind; to be called now and then.
    void watch(std::int64_t now_ns);

    /// What ended the source early.
    [[nodiscard]] std::exception_ptr error() const;
    /// How often a live source was lost, and why the last time, with why it is not back.
    [[nodiscard]] std::int64_t faults() const;
    [[nodiscard]] std::optional<std::string> fault() const;
    /// A word or two for a status line.
    [[nodiscard]] std::string state() const;

   private:
    class Thread;

    double patience_s_;
    std::shared_ptr<Thread> state_;
    std::thread thread_;
    std::optional<int> unread_;  // the generation whose thread is still to be started
};

}  // namespace derain
