"""Who may watch a run without taking part in it: the live page, telemetry, metrics, the recorder of faults."""

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from derain.runtime.frames import Frame, Image
from derain.runtime.records import FrameRecord, RunReport, Status


class Observer:
    """Told of each frame and, several times a second, of the state; a context manager. A kind fills in what it needs.

    All calls but `close` are on the pipeline's own thread between two frames: a kind keeps what it is given and leaves
    work to a thread of its own. The pictures are nobody's to change.
    """

    def on_frame(self, record: FrameRecord, frame: Frame, shown: Image) -> None:
        """A frame was presented: as it came, and as it went out."""

    def on_drop(self, record: FrameRecord) -> None:
        """A frame was not."""

    def on_unused(self, captured_ns: int, ns: int) -> None:
        """The engine worked for `ns` on a frame captured then, which went out raw all the same."""

    def on_status(self, status: Status) -> None:
        """The run as it stands."""

    def on_report(self, report: RunReport) -> None:
        """The run is over: what it did, also where an error ended it, which goes up after this."""

    def close(self) -> None:
        """Finish what was begun."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class ReportTo(Observer):
    """Hands on the report alone."""

    def __init__(self, to: Callable[[RunReport], None]) -> None:
        self._to = to

    def on_report(self, report: RunReport) -> None:  # noqa: D102
        self._to(report)


class Observers(Observer):
    """Several as one; each is closed by whoever opened it."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._all = tuple(observers)

    def on_frame(self, record: FrameRecord, frame: Frame, shown: Image) -> None:  # noqa: D102
        for observer in self._all:
            observer.on_frame(record, frame, shown)

    def on_drop(self, record: FrameRecord) -> None:  # noqa: D102
        for observer in self._all:
            observer.on_drop(record)

    def on_unused(self, captured_ns: int, ns: int) -> None:  # noqa: D102
        for observer in self._all:
            observer.on_unused(captured_ns, ns)

    def on_status(self, status: Status) -> None:  # noqa: D102
        for observer in self._all:
            observer.on_status(status)

    def on_report(self, report: RunReport) -> None:  # noqa: D102
        for observer in self._all:
            observer.on_report(report)
