"""The guard: which picture goes out when the engine is late, fails, or returns nonsense.

One state machine; every frame goes out raw in every state but `deraining`:

| state       | event    | next        | what it means                                                              |
| ----------- | -------- | ----------- | -------------------------------------------------------------------------- |
| deraining   | result   | deraining   | a good result in time: it goes out                                         |
| deraining   | deadline | late        | no result in time: the raw frame goes out now                              |
| deraining   | fault    | backing off | the engine raised or returned nonsense: the raw frame goes out             |
| deraining   | spent    | raw         | the same, but the engine was reopened 5 times within a minute already      |
| late        | result   | deraining   | the late result came and is thrown away; the engine is free again          |
| late        | fault    | backing off | the late frame ended in a fault                                            |
| late        | spent    | raw         | the same, after 5 reopenings within a minute                               |
| backing off | due      | reopening   | the delay is over: the engine is closed and opened on its own thread       |
| reopening   | opened   | deraining   | it opened and warmed up                                                    |
| reopening   | fault    | backing off | it did not                                                                 |
| reopening   | spent    | raw         | it did not, after 5 reopenings within a minute: raw frames until restarted |

Any other pair is a mistake in the program and raises RuntimeError. A new run starts in `deraining`.
"""

import logging
from enum import StrEnum

from derain.runtime.backoff import BackOff

log = logging.getLogger(__name__)

REOPENINGS = 5
"""Reopenings allowed in a minute. An engine that fails more often does not heal by itself, and each opening costs the
GPU seconds."""


class State(StrEnum):
    """State of the guard; every frame goes out raw in every state but `deraining`."""

    DERAINING = "deraining"
    LATE = "late"
    BACKING_OFF = "backing off"
    REOPENING = "reopening"
    RAW = "raw"


class Event(StrEnum):
    """What happens to the engine."""

    RESULT = "result"
    DEADLINE = "deadline"
    FAULT = "fault"
    SPENT = "spent"
    DUE = "due"
    OPENED = "opened"


NEXT = {
    (State.DERAINING, Event.RESULT): State.DERAINING,
    (State.DERAINING, Event.DEADLINE): State.LATE,
    (State.DERAINING, Event.FAULT): State.BACKING_OFF,
    (State.DERAINING, Event.SPENT): State.RAW,
    (State.LATE, Event.RESULT): State.DERAINING,
    (State.LATE, Event.FAULT): State.BACKING_OFF,
    (State.LATE, Event.SPENT): State.RAW,
    (State.BACKING_OFF, Event.DUE): State.REOPENING,
    (State.REOPENING, Event.OPENED): State.DERAINING,
    (State.REOPENING, Event.FAULT): State.BACKING_OFF,
    (State.REOPENING, Event.SPENT): State.RAW,
}


class Guard:
    """The machine above, with the deadline and the back-off it needs. Times are `time.monotonic_ns()`.

    `deadline_ns` is how long after its capture a frame's result must be there; None: there is no deadline.
    `due_ns` is when a reopening is due, None but while backing off; `fault` is the last fault's text.
    """

    def __init__(self, deadline_ns: int | None = None, back_off: BackOff | None = None) -> None:
        self.deadline_ns = deadline_ns
        self.state = State.DERAINING
        self.due_ns: int | None = None
        self.fault: str | None = None
        self.faults = self.reopened = 0
        self._back_off = back_off or BackOff(most=REOPENINGS)

    def on(self, event: Event, now_ns: int, why: str | None = None) -> None:
        """Take one event, with the text of a fault; FAULT becomes SPENT where no reopening is left."""
        delay_s = None
        if event is Event.FAULT:
            self.faults += 1
            self.fault = why
            delay_s = self._back_off.next_s(now_ns)
            event = Event.FAULT if delay_s is not None else Event.SPENT
        if (self.state, event) not in NEXT:
            raise RuntimeError(f"the guard got {event.value!r} while {self.state.value!r}, which cannot be")
        self.state = NEXT[self.state, event]
        self.due_ns = now_ns + round(delay_s * 1e9) if delay_s is not None else None
        self.reopened += event is Event.OPENED
        if event is Event.FAULT:
            log.warning("engine fault: %s: raw frames; the engine is reopened in %.1f s", why, delay_s)
        elif event is Event.SPENT:
            log.error("engine fault: %s: reopened %d times within a minute, raw frames from now on", why, REOPENINGS)
        elif event is Event.OPENED:
            log.warning("the engine is open again")

    def deadline(self, captured_ns: int) -> int | None:
        """By when the result of a frame must be there."""
        return None if self.deadline_ns is None else captured_ns + self.deadline_ns

    def overdue(self, captured_ns: int, now_ns: int) -> bool:
        """Whether a frame's deadline has passed."""
        deadline = self.deadline(captured_ns)
        return deadline is not None and now_ns > deadline
