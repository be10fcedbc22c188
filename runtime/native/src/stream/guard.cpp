#include "derain/stream/guard.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <stdexcept>

#include "derain/stream/clock.hpp"
#include "tenths.hpp"

namespace derain {

namespace {

constexpr double longest_ms = 1e9;

struct Row {
    State state;
    Event event;
    State next;
};

constexpr std::array table{
    Row{State::deraining, Event::result, State::deraining},
    Row{State::deraining, Event::deadline, State::late},
    Row{State::deraining, Event::fault, State::backing_off},
    Row{State::deraining, Event::spent, State::raw},
    Row{State::late, Event::result, State::deraining},
    Row{State::late, Event::fault, State::backing_off},
    Row{State::late, Event::spent, State::raw},
    Row{State::backing_off, Event::due, State::reopening},
    Row{State::reopening, Event::opened, State::deraining},
    Row{State::reopening, Event::fault, State::backing_off},
    Row{State::reopening, Event::spent, State::raw},
};

}  // namespace

std::string_view to_string(State state) {
    constexpr std::array<std::string_view, 5> texts{"deraining", "late", "backing off", "reopening", "raw"};
    return texts[static_cast<std::size_t>(state)];
}

std::string_view to_string(Event event) {
    constexpr std::array<std::string_view, 6> texts{"result", "deadline", "fault", "spent", "due", "opened"};
    return texts[static_cast<std::size_t>(event)];
}

std::optional<State> next_state(State state, Event event) {
    const auto* row = std::ranges::find_if(table, [&](const Row& r) { return r.state == state && r.event == event; });
    return row == table.end() ? std::nullopt : std::optional(row->next);
}

std::optional<std::int64_t> deadline_in_ns(std::optional<double> ms) {
    return ms ? std::optional<std::int64_t>(std::llround(std::min(longest_ms, *ms) * 1e6)) : std::nullopt;
}

Guard::Guard(std::optional<std::int64_t> deadline_ns, Tell tell, BackOff back_off)
    : deadline_ns_(deadline_ns), tell_(std::move(tell)), back_off_(std::move(back_off)) {}

void Guard::on(Event event, std::int64_t now_ns, std::string_view why) {
    std::optional<double> delay_s;
    if (event == Event::fault) {
        ++faults_;
        fault_ = why;
        delay_s = back_off_.next_s(now_ns);
        event = delay_s ? Event::fault : Event::spent;
    }
    const auto next = next_state(state_, event);
    if (!next) {
        throw std::logic_error("the guard got '" + std::string(to_string(event)) + "' while '" +
                               std::string(to_string(state_)) + "', which cannot be");
    }
    state_ = *next;
    due_ns_.reset();
    if (delay_s) {
        due_ns_ = now_ns + std::llround(*delay_s * static_cast<double>(second_ns));
    }
    reopened_ += event == Event::opened ? 1 : 0;
    if (!tell_) {
        return;
    }
    if (event == Event::fault) {
        tell_("engine fault: " + *fault_ + ": raw frames; the engine is reopened in " + tenths(*delay_s) + " s");
    } else if (event == Event::spent) {
        tell_("engine fault: " + *fault_ + ": reopened " + std::to_string(reopenings) +
              " times within a minute, raw frames from now on");
    } else if (event == Event::opened) {
        tell_("the engine is open again");
    }
}

std::optional<std::int64_t> Guard::deadline(std::int64_t captured_ns) const {
    return deadline_ns_ ? std::optional(captured_ns + *deadline_ns_) : std::nullopt;
}

bool Guard::overdue(std::int64_t captured_ns, std::int64_t now_ns) const {
    const auto at = deadline(captured_ns);
    return at && now_ns > *at;
}

}  // namespace derain
