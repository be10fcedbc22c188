"""What TensorRT and TensorRT-RTX share and where they differ, told once: packages, what a build may ask for, messages.

TensorRT allows one logger a process, so there is one an API, which keeps the errors that its calls do not return.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from shlex import quote
from typing import Any

from derain.runtime.manifest import EngineEntry

log = logging.getLogger(__name__)

PORTABLE = "portable"
"""The architecture of a TensorRT-RTX engine for every GPU since Ampere that release serves: its kernels are made there.

Turing, sm75, wants engines of its own.
"""


@dataclass(frozen=True)
class Api:
    """One of the two packages, which are one API but for what the flags say."""

    name: str
    package: str
    extra: str
    ahead_of_time: bool
    """Builds without a GPU, for the architectures that are named."""
    timing_cache: bool
    """Times kernels while it builds, and can keep the times."""

    @property
    def installed(self) -> bool:
        """Whether the package is there."""
        return find_spec(self.package) is not None

    def load(self) -> Any:
        """The package; ModuleNotFoundError with the command that installs it."""
        if not self.installed:
            raise ModuleNotFoundError(f"{self.package} is not installed: pip install 'derain[{self.extra}]'")
        return import_module(self.package)


APIS = {
    api.name: api
    for api in (
        Api("tensorrt", "tensorrt", "tensorrt", ahead_of_time=False, timing_cache=True),
        Api("tensorrt-rtx", "tensorrt_rtx", "rtx", ahead_of_time=True, timing_cache=False),
    )
}


def choose(name: str | None) -> Api:
    """The API called `name`, or the first that is installed.

    Raises ValueError for an unknown name, ModuleNotFoundError where it, or any, is not installed.
    """
    if name is None:
        installed = [api for api in APIS.values() if api.installed]
        if not installed:
            raise ModuleNotFoundError("no TensorRT here: pip install 'derain[rtx]' (or 'derain[tensorrt]')")
        return installed[0]
    if name not in APIS:
        raise ValueError(f"API {name!r} is unknown, known are: {', '.join(APIS)}")
    APIS[name].load()
    return APIS[name]


def build_command(bundle: Path, entry: EngineEntry) -> str:
    """The command that builds an engine of a bundle again, from the graph its precision has by then."""
    command = f"derain build {quote(str(bundle))} --precision {entry.precision} --api {entry.api}"
    if entry.api in APIS and APIS[entry.api].ahead_of_time and entry.arch != PORTABLE:
        command += f" --arch {entry.arch.replace('+', ',')}"
    if entry.options.get("workspace_mib") is not None:
        command += f" --workspace {entry.options['workspace_mib']}"
    return command + " --tf32" * bool(entry.options.get("tf32"))


@cache
def logger(api: Api) -> Any:
    """The API's one logger; what it hears goes to `logging`, and errors to whoever is in `errors`."""
    trt = api.load()

    class Listener(trt.ILogger):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(" ".join(message.split()))
            log.debug("%s: %s", api.name, message)

    return Listener()


def start(api: Api, kind: str, heard: list[str]) -> Any:
    """The API's `Builder` or `Runtime`; OSError where it does not start, as with a driver that is too old.

    The bindings raise TypeError then, and the reason is among the errors `heard`.
    """
    trt = api.load()
    try:
        return getattr(trt, kind)(logger(api))
    except TypeError as error:
        reason = heard[0] if heard else str(error)
        raise OSError(f"{api.name} {trt.__version__} does not start: {reason}: see `derain doctor`") from error


@contextmanager
def errors(api: Api) -> Iterator[list[str]]:
    """The errors the API reports inside the block, oldest first."""
    heard = logger(api).errors
    heard.clear()
    yield heard
