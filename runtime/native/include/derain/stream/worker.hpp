/// The engine's own thread: it infers and reopens, one thing at a time, and never lets a fault out but as a result.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "derain/engine.hpp"
#include "derain/stream/clock.hpp"
#include "derain/stream/queue.hpp"

namespace derain {

/// How long the end of a run waits for an engine that is at work: longer than any frame takes.
inline constexpr double engine_patience_s = 10;

/// What the engine did: `frame` is empty for a reopening; `clean` is empty, and `fault` says why, where it failed.
struct Done {
    std::optional<Frame> frame = std::nullopt;
    Picture clean = {};
    std::int64_t start_ns = 0;
    std::int64_t end_ns = 0;
    std::optional<std::string> fault = std::nullopt;
};

/// What the loop needs of `Worker`.
class Jobs {
   public:
    Jobs() = default;
    Jobs(const Jobs&) = delete;
    Jobs& operator=(const Jobs&) = delete;
    virtual ~Jobs() = default;

    /// Derains a frame.
    virtual void infer(const Frame& frame) = 0;
    /// Closes the engine, opens it again and warms it up.
    virtual void reopen() = 0;
    /// What was finished since the last call, if anything; it never waits.
    virtual std::optional<Done> poll() = 0;
};

/// Gives an open engine one job at a time, then `poll` until it is done; `on_done` is called on the engine's thread.
///
/// The engine is left to its owner. Where it is still at work `patience_s` after the end, its thread is left behind and
/// keeps what it needs alive.
class Worker final : public Jobs {
   public:
    Worker(std::shared_ptr<Engine> engine, std::function<void()> on_done, Clock clock = monotonic_ns,
           double patience_s = engine_patience_s);
    Worker(const Worker&) = delete;
    Worker& operator=(const Worker&) = delete;
    ~Worker() override;

    void infer(const Frame& frame) override;
    void reopen() override;
    std::optional<Done> poll() override;
    /// Waits no more for an engine that is at work: whoever asks has waited already.
    void leave() { patience_s_ = 0; }

   private:
    class Thread;

    double patience_s_;
    std::shared_ptr<Thread> state_;
    std::thread thread_;
};

}  // namespace derain
