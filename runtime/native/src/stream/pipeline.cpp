#include "derain/stream/pipeline.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <exception>
#include <string>
#include <utility>

#include "derain/error.hpp"
#include "derain/stream/wake.hpp"

namespace derain {

namespace {

// How often the loop looks up without being woken: for a stop, a stalled source and the status line.
constexpr double tick_s = 0.1;
constexpr std::int64_t tick_ns = second_ns / 10;
constexpr std::size_t dropped_in_advance = 64;

Why why_raw(State state) {
    switch (state) {
        case State::late:
            return Why::late;
        case State::raw:
            return Why::given_up;
        default:
            return Why::away;
    }
}

std::string words_of(const std::exception_ptr& error) {
    try {
        std::rethrow_exception(error);
    } catch (...) {
        return what_was_caught();
    }
}

}  // namespace

Loop::Loop(FrameQueue& frames, Jobs& worker, Sink& sink, Guard& guard, Hooks hooks, std::int64_t count_from_ns)
    : frames_(frames), worker_(worker), sink_(sink), guard_(guard), hooks_(std::move(hooks)), tally_(count_from_ns) {
    dropped_.reserve(dropped_in_advance);
}

bool Loop::step() {
    frames_.take_dropped(dropped_);
    for (const auto& [id, captured_ns, why, asked_ns] : dropped_) {
        drop(id, asked_ns, captured_ns, why);
    }
    const auto collected = collect();
    const auto admitted = admit();
    for (const auto* outgoing : {&collected, &admitted}) {
        if (*outgoing) {
            present(**outgoing);
        }
    }
    return collected || admitted;
}

void Loop::give_up() {
    if (waiting_) {
        guard_.on(Event::deadline, hooks_.clock());
        present(raw(taken(), Why::deadline));
    } else if (auto frame = frames_.take()) {
        present(raw(std::move(*frame), why_raw(guard_.state())));
    }
}

double Loop::patience_s() const {
    double patience = tick_s;
    const auto now_ns = hooks_.clock();
    for (const auto at : {waiting_ ? guard_.deadline(waiting_->captured_ns) : std::nullopt, guard_.due_ns()}) {
        if (at) {
            patience = std::min(patience, static_cast<double>(*at - now_ns) / static_cast<double>(second_ns));
        }
    }
    return std::max(patience, 0.0);
}

/// Takes what the engine finished, looks at the clock, and tells the guard.
std::optional<Loop::Outgoing> Loop::collect() {
    const auto now_ns = hooks_.clock();
    if (guard_.due_ns() && now_ns >= *guard_.due_ns()) {
        guard_.on(Event::due, now_ns);
        worker_.reopen();
    }
    if (auto done = worker_.poll()) {
        return take_result(std::move(*done), now_ns);
    }
    if (!waiting_ || !guard_.overdue(waiting_->captured_ns, now_ns)) {
        return std::nullopt;
    }
    guard_.on(Event::deadline, now_ns);
    return raw(taken(), Why::deadline);
}

std::optional<Loop::Outgoing> Loop::take_result(Done done, std::int64_t now_ns) {
    const std::string_view fault = done.fault ? std::string_view(*done.fault) : std::string_view();
    if (!done.frame) {
        guard_.on(done.fault ? Event::fault : Event::opened, now_ns, fault);
        return std::nullopt;
    }
    const bool late = waiting_ && guard_.overdue(done.frame->captured_ns, done.end_ns);
    if (late) {
        guard_.on(Event::deadline, now_ns);
    }
    guard_.on(done.fault ? Event::fault : Event::result, now_ns, fault);
    if (!waiting_ || late || !done.clean) {
        const auto took_ns = done.end_ns - done.start_ns;
        tally_.add_unused_inference(done.frame->captured_ns, took_ns);
        if (hooks_.on_unused) {
            hooks_.on_unused(done.frame->captured_ns, took_ns);
        }
    }
    if (!waiting_) {
        return std::nullopt;
    }
    if (late) {
        return raw(taken(), Why::deadline);
    }
    if (!done.clean) {
        return raw(taken(), Why::fault);
    }
    return Outgoing{taken(), std::move(done.clean), done.start_ns, done.end_ns};
}

/// The next frame: to the engine where it can have it, else out raw.
std::optional<Loop::Outgoing> Loop::admit() {
    // Without a deadline the engine is late only with a frame that was given up, and the next one waits for it.
    if (waiting_ || (guard_.state() == State::late && !guard_.deadline_ns())) {
        return std::nullopt;
    }
    auto frame = frames_.take();
    if (!frame) {
        return std::nullopt;
    }
    if (!frame->fits) {
        return raw(std::move(*frame), Why::unfit);
    }
    if (guard_.state() != State::deraining) {
        return raw(std::move(*frame), why_raw(guard_.state()));
    }
    if (guard_.overdue(frame->captured_ns, hooks_.clock())) {
        return raw(std::move(*frame), Why::deadline);
    }
    waiting_ = std::move(frame);
    worker_.infer(*waiting_);
    return std::nullopt;
}

void Loop::present(const Outgoing& outgoing) {
    const Frame& frame = outgoing.frame;
    try {
        sink_.write(outgoing.picture.bytes(), frame.captured_ns, outgoing.why.has_value());
    } catch (const WriteError& error) {
        if (frames_.policy() == Policy::every) {  // nothing may be lost, so this is the end
            throw;
        }
        ++lost_;
        if (hooks_.tell && std::has_single_bit(lost_)) {  // a log on the same full disk must not grow with every frame
            hooks_.tell("frame " + std::to_string(frame.id) + " lost, " + std::to_string(lost_) +
                        " so far: " + error.what());
        }
        drop(frame.id, frame.asked_ns, frame.captured_ns, Why::sink);
        return;
    }
    if (const auto warning = sink_.take_warning(); warning && hooks_.tell) {
        hooks_.tell(*warning);
    }
    FrameRecord record{.id = frame.id,
                       .asked_ns = frame.asked_ns,
                       .captured_ns = frame.captured_ns,
                       .inference_start_ns = std::nullopt,
                       .inference_end_ns = std::nullopt,
                       .presented_ns = hooks_.clock(),
                       .outcome = Outcome::passed_through,
                       .why = outgoing.why};
    if (!outgoing.why) {
        record.outcome = Outcome::derained;
        record.inference_start_ns = outgoing.start_ns;
        record.inference_end_ns = outgoing.end_ns;
    }
    tally_.add(record);
    if (hooks_.on_frame) {
        hooks_.on_frame(record, frame, outgoing.picture);
    }
}

void Loop::drop(std::int64_t id, std::int64_t asked_ns, std::int64_t captured_ns, Why why) {
    const FrameRecord record{.id = id,
                             .asked_ns = asked_ns,
                             .captured_ns = captured_ns,
                             .inference_start_ns = std::nullopt,
                             .inference_end_ns = std::nullopt,
                             .presented_ns = std::nullopt,
                             .outcome = Outcome::dropped,
                             .why = why};
    tally_.add(record);
    if (hooks_.on_drop) {
        hooks_.on_drop(record);
    }
}

Loop::Outgoing Loop::raw(Frame frame, Why why) const {
    auto picture = hooks_.to_output(frame.picture);
    return {.frame = std::move(frame), .picture = std::move(picture), .why = why};
}

Frame Loop::taken() {
    Frame frame = std::move(*waiting_);
    waiting_.reset();
    return frame;
}

RunReport run(const std::shared_ptr<Engine>& engine, const std::shared_ptr<Source>& source, Sink& sink,
              const RunOptions& options) {
    const auto policy = options.policy.value_or(source->live() ? Policy::latest : Policy::every);
    const auto wake = std::make_shared<Wake>();
    const auto waken = [wake] { wake->set(); };
    const auto frames = std::make_shared<FrameQueue>(policy, waken);
    Guard guard(deadline_in_ns(options.deadline_ms), options.tell);
    const auto start_ns = monotonic_ns();
    auto told_ns = start_ns;
    Worker worker(engine, waken, monotonic_ns, options.patience_s);
    Capture capture(source, frames, options.stalled_after_s, options.tell);
    Loop loop(*frames, worker, sink, guard,
              {.to_output = options.to_output,
               .on_frame = options.on_frame,
               .on_drop = options.on_drop,
               .on_unused = options.on_unused,
               .tell = options.tell},
              options.count_from_ns);
    std::optional<std::int64_t> stopped_ns;
    const auto patience_ns = std::llround(options.patience_s * static_cast<double>(second_ns));
    bool moved = false;
    std::exception_ptr error;
    try {
        while (!loop.finished()) {
            if (!moved) {
                wake->wait(loop.patience_s());
            }
            moved = loop.step();
            const auto now_ns = monotonic_ns();
            capture.watch(now_ns);
            if (!stopped_ns && options.stop && options.stop()) {
                stopped_ns = now_ns;
                capture.stop();
            }
            if (stopped_ns && now_ns - *stopped_ns >= patience_ns) {
                if (options.tell) {
                    options.tell("the engine does not come back: it is left behind");
                }
                worker.leave();
                break;
            }
            if (options.on_status && now_ns - told_ns >= tick_ns) {
                told_ns = now_ns;
                options.on_status(loop.tally().status(now_ns, guard.state(), capture.state()));
            }
        }
        error = capture.error();
    } catch (...) {
        error = std::current_exception();
    }
    auto report = loop.tally().report(policy, guard, std::max(start_ns, options.count_from_ns), monotonic_ns());
    report.source_faults = capture.faults();
    report.source_fault = capture.fault();
    if (error) {
        report.error = words_of(error);
    }
    if (options.on_report) {
        options.on_report(report);
    }
    if (error) {
        std::rethrow_exception(error);
    }
    return report;
}

}  // namespace derain
