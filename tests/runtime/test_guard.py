"""The guard's states, by a table of every event in every state."""

import itertools
import re

import pytest

from derain.runtime import guard as module
from derain.runtime.backoff import BackOff
from derain.runtime.guard import NEXT, REOPENINGS, Event, Guard, State

SECOND = 10**9
TABLE = {
    (State(state), Event(event)): State(following)
    for state, event, following in re.findall(r"^\| ([a-z ]+?) *\| ([a-z]+) *\| ([a-z ]+?) *\|", module.__doc__, re.M)
    if state != "state"
}


def in_state(state, spent=False):
    """A guard in `state`, with or without a reopening left."""
    guard = Guard(deadline_ns=10, back_off=BackOff(most=1))
    if spent:
        guard._back_off.next_s(0)
    guard.state = state
    return guard


def test_the_table_in_the_docstring_is_the_machine():
    assert TABLE == NEXT
    assert len(TABLE) == 11


@pytest.mark.parametrize(("state", "event"), list(itertools.product(State, Event)))
def test_every_event_in_every_state_does_what_the_table_says_or_is_refused(state, event):
    guard = in_state(state, spent=event is Event.SPENT)
    given = Event.FAULT if event is Event.SPENT else event
    if (state, event) in TABLE:
        guard.on(given, 0, "why")
        assert guard.state is TABLE[state, event]
    else:
        with pytest.raises(RuntimeError, match=f"got '{event}' while '{state}'"):
            guard.on(given, 0, "why")


def test_every_state_is_left_again_but_raw():
    assert {state for state, _ in TABLE} == set(State) - {State.RAW}
    assert set(TABLE.values()) == set(State)


def test_five_reopenings_a_minute_with_growing_delays_then_raw_frames_for_good():
    guard, now, delays = Guard(), 0, []
    for _ in range(REOPENINGS):
        guard.on(Event.FAULT, now, "boom")
        assert guard.state is State.BACKING_OFF
        delays.append((guard.due_ns - now) / SECOND)
        now = guard.due_ns
        guard.on(Event.DUE, now)
        assert guard.due_ns is None
        guard.on(Event.OPENED, now)
    assert delays == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6])
    guard.on(Event.FAULT, now, "boom")
    assert guard.state is State.RAW
    assert (guard.faults, guard.reopened, guard.fault) == (6, 5, "boom")


def test_faults_that_are_rare_never_exhaust_the_reopenings():
    guard = Guard()
    for minute in range(100):
        now = minute * 61 * SECOND
        guard.on(Event.FAULT, now, "boom")
        assert guard.due_ns - now == SECOND // 10
        guard.on(Event.DUE, guard.due_ns)
        guard.on(Event.OPENED, guard.due_ns)
    assert guard.reopened == 100


def test_a_back_off_without_a_limit_settles_at_its_longest_delay():
    back_off = BackOff(first_s=0.1, longest_s=5)
    now, delays = 0, []
    for _ in range(40):
        delays.append(back_off.next_s(now))
        now += round(delays[-1] * SECOND)
    assert delays[:4] == pytest.approx([0.1, 0.2, 0.4, 0.8])
    assert max(delays) == delays[-1] == 5


def test_a_deadline_counts_from_the_capture_and_without_one_nothing_is_overdue():
    guard = Guard(deadline_ns=10)
    assert guard.deadline(100) == 110
    assert [guard.overdue(100, now) for now in (109, 110, 111)] == [False, False, True]
    assert Guard().deadline(100) is None
    assert not Guard().overdue(0, 10**18)
