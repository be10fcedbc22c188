#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "derain/derain.h"
#include "session.hpp"

struct derain_stream {
    std::shared_ptr<derain::Engine> engine;
    std::unique_ptr<derain::Session> session;
    std::optional<derain::Received> lent;
};

namespace {

using derain::Error;

/// In memory a thread has from its start, so that telling of exhausted memory needs none.
std::array<char, 1024>& last_error() noexcept {
    thread_local std::array<char, 1024> text{};
    return text;
}

void set_error(const char* text) noexcept { std::strncpy(last_error().data(), text, last_error().size() - 1); }

/// Runs `work`, which gives a status; what it throws becomes DERAIN_FAULT and its text.
template <typename Work>
derain_status guarded(Work work) noexcept {
    try {
        return work();
    } catch (...) {
        set_error(derain::what_was_caught());
    }
    return DERAIN_FAULT;
}

template <typename Pointer>
Pointer* there(Pointer* pointer, const char* what) {
    if (pointer == nullptr) {
        throw Error(std::string(what) + " is NULL: pass one");
    }
    return pointer;
}

void check_size(std::size_t seen, std::size_t least, const char* what) {
    if (seen < least) {
        throw Error(std::string(what) + ".struct_size is " + std::to_string(seen) + ", expected at least " +
                    std::to_string(least) + ": set it to sizeof");
    }
}

/// The caller's struct as this library knows it; what an older caller lacks is 0.
template <typename Struct>
Struct copied(const Struct* given, std::size_t least, const char* what) {
    check_size(there(given, what)->struct_size, least, what);
    Struct known{};
    std::memcpy(&known, given, std::min(given->struct_size, sizeof(Struct)));
    return known;
}

/// As much of `known` as the caller's struct has room for.
template <typename Struct>
void give(Struct* taker, Struct known, std::size_t least, const char* what) {
    check_size(taker->struct_size, least, what);
    known.struct_size = taker->struct_size;
    std::memcpy(taker, &known, std::min(taker->struct_size, sizeof(Struct)));
}

// The sizes of the structs in version 0.1, which any caller has.
constexpr std::size_t options_size = sizeof(derain_options);
constexpr std::size_t format_size = sizeof(derain_format);
constexpr std::size_t frame_size = sizeof(derain_frame);
constexpr std::size_t statistics_size = sizeof(derain_statistics);

derain::Patience patience_of(std::int32_t timeout_ms) {
    if (timeout_ms < 0) {
        return std::nullopt;
    }
    return std::chrono::milliseconds(timeout_ms);
}

/// Whether this thread, one of a stream's, is in the caller's `warn`.
bool& warning() noexcept {
    thread_local bool there = false;
    return there;
}

derain::Tell tell_of(const derain_options& options) {
    if (options.warn == nullptr) {
        return nullptr;
    }
    return [warn = options.warn, user = options.user, one = std::make_shared<std::mutex>()](std::string_view line) {
        const std::scoped_lock lock(*one);  // the capture thread and the loop may have something to tell at once
        warning() = true;
        warn(user, std::string(line).c_str());
        warning() = false;
    };
}

derain_format format_of(const derain::FrameSpec& spec) {
    return {.struct_size = 0,
            .width = spec.width,
            .height = spec.height,
            .pixels = to_string(spec.pixels).data(),
            .matrix = spec.matrix.c_str(),
            .range = spec.range.c_str(),
            .bytes = spec.bytes()};
}

derain_frame frame_of(const derain::Received& received) {
    const derain::FrameRecord& record = received.record;
    const auto bytes = received.picture.bytes();
    return {.struct_size = 0,
            .id = static_cast<std::uint64_t>(record.id),
            .data = reinterpret_cast<const std::uint8_t*>(bytes.data()),
            .bytes = bytes.size(),
            .derained = record.why ? 0 : 1,
            .why = record.why ? to_string(*record.why).data() : nullptr,
            .captured_ns = record.captured_ns,
            .inference_start_ns = record.inference_start_ns.value_or(0),
            .inference_end_ns = record.inference_end_ns.value_or(0),
            .ready_ns = record.presented_ns.value_or(0)};
}

derain_percentiles percentiles_of(const derain::Histogram& histogram) {
    if (histogram.count() == 0) {
        return {};
    }
    const derain::Percentiles of = histogram.percentiles();
    return {.p50 = of.p50, .p90 = of.p90, .p99 = of.p99, .p999 = of.p999, .max = of.max};
}

derain_statistics statistics_of(const derain::Session::Statistics& seen) {
    const derain::Tally& tally = seen.tally;
    const auto count = [](std::int64_t value) { return static_cast<std::uint64_t>(value); };
    return {.struct_size = 0,
            .frames = seen.submitted,
            .presented = count(tally.presented()),
            .passed_through = count(tally.count(derain::Outcome::passed_through)),
            .dropped = count(tally.count(derain::Outcome::dropped)),
            .deadline_misses = count(tally.deadline_misses()),
            .engine_faults = count(tally.count(derain::Why::fault)),
            .unreceived = seen.unreceived,
            .inference = percentiles_of(tally.latency().of(derain::Stage::inference)),
            .capture_to_present = percentiles_of(tally.latency().of(derain::Stage::capture_to_present))};
}

}  // namespace

const char* derain_version() { return DERAIN_VERSION; }

const char* derain_error() { return last_error().data(); }

derain_status derain_open(const derain_options* options, derain_stream** stream) {
    return guarded([&] {
        *there(stream, "stream") = nullptr;
        const derain_options given = copied(options, options_size, "options");
        const auto bundle = derain::Bundle::load(there(given.bundle, "options.bundle"));
        const auto precision = derain::parse_precision(there(given.precision, "options.precision"));
        if (given.policy != DERAIN_LATEST && given.policy != DERAIN_EVERY) {
            throw Error("options.policy is " + std::to_string(given.policy) +
                        ", expected DERAIN_LATEST or DERAIN_EVERY: set one");
        }
        if (!(given.deadline_ms >= 0)) {
            throw Error("options.deadline_ms is negative or no number: 0 is no deadline");
        }
        auto opened = std::make_unique<derain_stream>();
        opened->engine =
            derain::make_engine(there(given.engine, "options.engine"), bundle, precision, {.threads = given.threads});
        opened->engine->open();
        opened->engine->warm_up();
        derain::Session::Options how{
            .policy = given.policy == DERAIN_EVERY ? derain::Policy::every : derain::Policy::latest,
            .tell = tell_of(given)};
        if (given.deadline_ms > 0) {
            how.deadline_ms = given.deadline_ms;
        }
        opened->session = std::make_unique<derain::Session>(opened->engine, std::move(how));
        *stream = opened.release();
        return DERAIN_OK;
    });
}

derain_status derain_formats(const derain_stream* stream, derain_format* input, derain_format* output) {
    return guarded([&] {
        const derain::Engine& engine = *there(stream, "stream")->engine;
        if (input != nullptr) {
            give(input, format_of(engine.input()), format_size, "input");
        }
        if (output != nullptr) {
            give(output, format_of(engine.output()), format_size, "output");
        }
        return DERAIN_OK;
    });
}

derain_status derain_submit(derain_stream* stream, const void* data, std::size_t bytes, std::int64_t captured_ns,
                            std::int32_t timeout_ms, std::uint64_t* id) {
    return guarded([&] {
        const std::span frame(static_cast<const std::byte*>(there(data, "data")), bytes);
        const auto given = there(stream, "stream")->session->submit(frame, captured_ns, patience_of(timeout_ms));
        if (!given) {
            return DERAIN_TIMEOUT;
        }
        if (id != nullptr) {
            *id = *given;
        }
        return DERAIN_OK;
    });
}

derain_status derain_receive(derain_stream* stream, std::int32_t timeout_ms, derain_frame* frame) {
    return guarded([&] {
        check_size(there(frame, "frame")->struct_size, frame_size, "frame");
        derain_stream& from = *there(stream, "stream");
        from.lent.reset();
        from.lent = from.session->receive(patience_of(timeout_ms));
        if (!from.lent) {
            return from.session->ended() ? DERAIN_END : DERAIN_TIMEOUT;
        }
        give(frame, frame_of(*from.lent), frame_size, "frame");
        return DERAIN_OK;
    });
}

derain_status derain_finish(derain_stream* stream) {
    return guarded([&] {
        there(stream, "stream")->session->finish();
        return DERAIN_OK;
    });
}

derain_status derain_get_statistics(const derain_stream* stream, derain_statistics* statistics) {
    return guarded([&] {
        const derain_statistics seen = there(stream, "stream")->session->statistics(statistics_of);
        give(there(statistics, "statistics"), seen, statistics_size, "statistics");
        return DERAIN_OK;
    });
}

void derain_close(derain_stream* stream) {
    guarded([&] {
        if (warning()) {  // a stream's own thread cannot wait for its own end
            std::thread([stream] { delete stream; }).detach();
            return DERAIN_OK;
        }
        const std::unique_ptr<derain_stream> owned(stream);
        return DERAIN_OK;
    });
}
