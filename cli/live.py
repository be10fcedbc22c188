"""What a stream shows while it runs: one line that changes on a terminal, now and then a line in a log."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console

from derain.runtime.observers import Observer

if TYPE_CHECKING:
    from derain.runtime.records import RunReport, Status

LOG_EVERY_S = 5.0


def describe(status: "Status", total: int | None) -> str:
    """A status in one line."""
    of = f" of {total}" if total is not None else ""
    words = [
        f"frame {status.frames}{of}",
        f"{status.fps:.1f} frames/s",
        f"p50 {status.p50_ms:.1f} ms, p99 {status.p99_ms:.1f} ms",
        f"age {status.age_ms:.0f} ms",
        f"dropped {status.dropped}",
        f"passed through {status.passed_through}",
    ]
    words += [f"engine {status.engine}"] * (status.engine != "deraining")
    words += [f"source {status.source}"] * (status.source != "open")
    return " · ".join(words)


class LiveLine(Observer):
    """Shows each status in one line, of a source of `total` frames where that is known."""

    def __init__(self, console: Console, total: int | None) -> None:
        self._console, self._total, self._told = console, total, time.monotonic()
        self._line = console.status("opening") if console.is_terminal else None
        if self._line is not None:
            self._line.start()

    def on_status(self, status: "Status") -> None:  # noqa: D102
        words = describe(status, self._total)
        if self._line is not None:
            self._line.update(words)
        elif time.monotonic() - self._told >= LOG_EVERY_S:
            self._told = time.monotonic()
            try:
                self._console.print(words, highlight=False, soft_wrap=True)
            except OSError:  # such as a full disk: the stream matters more than its log
                self._console.quiet = True

    def close(self) -> None:  # noqa: D102
        if self._line is not None:
            self._line.stop()


@contextmanager
def stopping() -> Iterator[threading.Event]:
    """Yield an event that SIGINT (Ctrl-C) and SIGTERM set, so that a stream ends as if its source had.

    A second one ends the process at once: the engine may hang.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # only the main thread gets signals
        yield stop
        return

    def set_stop(number: int, _: object) -> None:
        stop.set()
        signal.signal(number, signal.SIG_DFL)

    before = {name: signal.signal(name, set_stop) for name in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


def summarise(console: Console, report: "RunReport", place: str) -> None:
    """Print a report: what came out where, what did not and why, and the latency."""
    from rich.table import Table

    def say(line: str) -> None:
        console.print(line, highlight=False, soft_wrap=True)

    say(
        f"{report.presented} of {report.frames} frames to {place}, {report.presented - report.passed_through} of them "
        f"derained, {report.fps:.1f} frames/s, {report.outside_engine_share:.1%} of the time outside the engine"
    )
    for why, count in report.why.items():
        say(f"{count} not derained: {why}")
    if report.engine_faults:
        reopened = f"reopened {report.engine_reopened} times, {report.engine_state} at the end"
        say(f"engine faults: {report.engine_faults}, {reopened}; the last: {report.engine_fault}")
    if report.source_faults:
        say(f"source lost: {report.source_faults} times; the last: {report.source_fault}")
    table = Table("latency, ms", "p50", "p90", "p99", "p99.9", "max", box=None)
    for stage, percentiles in report.latency_ms.items():
        table.add_row(stage.replace("_", " "), *(f"{value:.2f}" for _, value in percentiles))
    console.print(table)
