/// The guard: which picture goes out when the engine is late, fails, or returns nonsense.
///
/// One state machine; every frame goes out raw in every state but `deraining`:
///
// clang-format off
/// | state       | event    | next        | what it means                                                 |
/// | ----------- | -------- | ----------- | ------------------------------------------------------------- |
/// | deraining   | result   | deraining   | a good result in time: it goes out                            |
/// | deraining   | deadline | late        | no result in time: the raw frame goes out now                 |
/// | deraining   | fault    | backing off | the engine threw or returned nonsense: the raw frame goes out |
/// | deraining   | spent    | raw         | the same, but the engine was reopened 5 times within a minute |
/// | late        | result   | deraining   | the late result came and is thrown away; the engine is free   |
/// | late        | fault    | backing off | the late frame ended in a fault                               |
/// | late        | spent    | raw         | the same, after 5 reopenings within a minute                  |
/// | backing off | due      | reopening   | the delay is over: the engine is reopened on its own thread   |
/// | reopening   | opened   | deraining   | it opened and warmed up                                       |
/// | reopening   | fault    | backing off | it did not                                                    |
/// | reopening   | spent    | raw         | it did not, after 5 reopenings: raw frames until restarted    |
// clang-format on
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "derain/stream/back_off.hpp"
#include "derain/stream/tell.hpp"

namespace derain {

/// In a minute. An engine that fails more often does not heal by itself, and each opening costs the GPU seconds.
inline constexpr std::size_t reopenings = 5;

/// Of the guard.
enum class State { deraining, late, backing_off, reopening, raw };

/// What happens to the engine.
enum class Event { result, deadline, fault, spent, due, opened };

std::string_view to_string(State state);
std::string_view to_string(Event event);

/// Where an event leads; nothing where the table above has no such row.
std::optional<State> next_state(State state, Event event);

/// A deadline in ns; of more than the eleven days that are no deadline to anybody, which might overflow, eleven days.
std::optional<std::int64_t> deadline_in_ns(std::optional<double> ms);

/// The machine above, with the deadline and the back-off it needs. Not for several threads.
class Guard {
   public:
    /// `deadline_ns` is how long after its capture a frame's result must be there; without it there is no deadline.
    explicit Guard(std::optional<std::int64_t> deadline_ns = std::nullopt, Tell tell = nullptr,
                   BackOff back_off = BackOff(reopenings));

    /// Takes one event, with the text of a fault; `fault` becomes `spent` where no reopening is left.
    ///
    /// Throws std::logic_error for a pair the table does not have: a mistake in the program.
    void on(Event event, std::int64_t now_ns, std::string_view why = {});

    /// By when the result of a frame must be there.
    [[nodiscard]] std::optional<std::int64_t> deadline(std::int64_t captured_ns) const;
    [[nodiscard]] bool overdue(std::int64_t captured_ns, std::int64_t now_ns) const;

    [[nodiscard]] State state() const { return state_; }
    [[nodiscard]] std::optional<std::int64_t> deadline_ns() const { return deadline_ns_; }
    /// When a reopening is due; nothing but while backing off.
    [[nodiscard]] std::optional<std::int64_t> due_ns() const { return due_ns_; }
    /// The last fault's text.
    [[nodiscard]] const std::optional<std::string>& fault() const { return fault_; }
    [[nodiscard]] std::int64_t faults() const { return faults_; }
    [[nodiscard]] std::int64_t reopened() const { return reopened_; }

   private:
    std::optional<std::int64_t> deadline_ns_;
    Tell tell_;
    BackOff back_off_;
    State state_ = State::deraining;
    std::optional<std::int64_t> due_ns_;
    std::optional<std::string> fault_;
    std::int64_t faults_ = 0;
    std::int64_t reopened_ = 0;
};

}  // namespace derain
