/// Capture, infer, present: three threads, one loop that decides.
///
///     source ─ capture thread ─▶ FrameQueue ─▶ the loop, on the caller's thread ─▶ sink
///                                               │     ▲
///                                               ▼     │
///                                            Worker, the engine's thread
///
/// The loop alone decides what goes out, so that its rules need no locks and can be tested in a time of their own: it
/// collects what the engine finished, gives the engine the next frame, then presents, and the engine works while the
/// sink does. What a sink throws goes straight up.
///
/// Copies of a frame between the source and the engine, and between the engine and the sink: none. Allocations a frame,
/// once the pools are filled: none.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "derain/stream/capture.hpp"
#include "derain/stream/clock.hpp"
#include "derain/stream/guard.hpp"
#include "derain/stream/queue.hpp"
#include "derain/stream/records.hpp"
#include "derain/stream/sink.hpp"
#include "derain/stream/worker.hpp"

namespace derain {

/// Gets each presented frame's record, the frame and the picture that went out.
using OnFrame = std::function<void(const FrameRecord&, const Frame&, const Picture&)>;
/// Gets the record of each frame that did not.
using OnDrop = std::function<void(const FrameRecord&)>;
/// Gets when a frame was captured and how long its inference took, where that was of no use: the frame goes out raw.
using OnUnused = std::function<void(std::int64_t captured_ns, std::int64_t ns)>;
/// A raw picture in the output's pixels.
using ToOutput = std::function<Picture(const Picture&)>;

/// The rules, without threads: `step` does what can be done now, `patience_s` says when to look again at the latest.
///
/// Frames are presented in their order, each at most once; the engine has one at a time.
class Loop {
   public:
    struct Hooks {
        ToOutput to_output = [](const Picture& picture) { return picture; };
        OnFrame on_frame = nullptr;
        OnDrop on_drop = nullptr;
        OnUnused on_unused = nullptr;
        Tell tell = nullptr;
        Clock clock = monotonic_ns;
    };

    /// Frames captured before `count_from_ns` are presented as any other but not counted.
    Loop(FrameQueue& frames, Jobs& worker, Sink& sink, Guard& guard, Hooks hooks, std::int64_t count_from_ns = 0);

    /// Does what can be done now; false where nothing went out.
    bool step();
    /// Waits no more for the engine: the frame it has, or the next one, goes out raw, as at a deadline.
    ///
    /// Without a deadline a frame that comes later waits for the engine again.
    void give_up();
    /// Seconds until the next deadline, reopening or tick.
    [[nodiscard]] double patience_s() const;
    /// Every frame there was has been presented or dropped.
    [[nodiscard]] bool finished() const { return !waiting_ && frames_.ended(); }
    [[nodiscard]] const Tally& tally() const { return tally_; }

   private:
    /// A picture to present: derained with the engine's times, or raw for a reason.
    struct Outgoing {
        Frame frame;
        Picture picture;
        std::int64_t start_ns = 0;
        std::int64_t end_ns = 0;
        std::optional<Why> why = std::nullopt;
    };

    std::optional<Outgoing> collect();
    std::optional<Outgoing> take_result(Done done, std::int64_t now_ns);
    std::optional<Outgoing> admit();
    void present(const Outgoing& outgoing);
    void drop(std::int64_t id, std::int64_t asked_ns, std::int64_t captured_ns, Why why);
    [[nodiscard]] Outgoing raw(Frame frame, Why why) const;
    Frame taken();

    FrameQueue& frames_;
    Jobs& worker_;
    Sink& sink_;
    Guard& guard_;
    Hooks hooks_;
    Tally tally_;
    std::optional<Frame> waiting_;  // with the engine, and not presented yet
    std::vector<FrameQueue::Dropped> dropped_;
    std::uint64_t lost_ = 0;  // to the sink
};

/// How a stream is run.
struct RunOptions {
    /// `latest` for a live source and `every` for any other, unless given.
    std::optional<Policy> policy = std::nullopt;
    /// Counts from a frame's capture: where the engine's result is not there by then, the raw frame goes out.
    std::optional<double> deadline_ms = std::nullopt;
    double stalled_after_s = stall_s;
    /// How long a stop waits for the engine; then what it has not given back is left behind, and is in no count.
    double patience_s = engine_patience_s;
    /// Frames captured before are presented as any other but left out of the report, as a warm-up is.
    std::int64_t count_from_ns = 0;
    /// What makes a raw picture one of the output, where that has other pixels than the input.
    ToOutput to_output = [](const Picture& picture) { return picture; };
    OnFrame on_frame = nullptr;
    OnDrop on_drop = nullptr;
    OnUnused on_unused = nullptr;
    /// The state of the run several times a second.
    std::function<void(const Status&)> on_status = nullptr;
    /// What the run did once it is over, also where an error ended it, which goes up after this.
    std::function<void(const RunReport&)> on_report = nullptr;
    Tell tell = nullptr;
    /// Asked several times a second, until it says so, whether to end as if the source had.
    std::function<bool()> stop = nullptr;
};

/// Derains `source` into `sink` until the source ends or `stop` says so; the caller opens and closes all three.
///
/// The callbacks are called on this thread, between frames, so they had better be quick.
///
/// What a file source throws goes up once every frame before it is presented. Under `every`, what the sink throws goes
/// up too; under `latest` a frame that the sink fails on (WriteError) counts as dropped, and the 1st, 2nd, 4th, 8th, …
/// is told. What the engine throws is the guard's business and never goes up. What was measured until then is not lost:
/// `on_report` gets it first.
RunReport run(const std::shared_ptr<Engine>& engine, const std::shared_ptr<Source>& source, Sink& sink,
              const RunOptions& options);

}  // namespace derain
