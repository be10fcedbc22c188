"""What every engine does, and the registry of backends by name."""

import importlib.util
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import Any, ClassVar, Self, TypeVar

import numpy as np

from derain.runtime.bundle import Bundle
from derain.runtime.frames import Image
from derain.runtime.manifest import Precision

log = logging.getLogger(__name__)
EngineT = TypeVar("EngineT", bound="Engine")
_backends: dict[str, type["Engine"]] = {}


class Engine(ABC):
    """One precision of a bundle, executed: open, warm up, infer, close. The public methods check, backends compute.

    A backend names its Python `package` and the `extra` that installs it, and fills in `_open`, `_infer` and `_close`.
    One thread at a time uses an engine, but not the same one always: the pipeline has a thread of its own for it.
    `device_ns` is what the last inference took on the device, copies to it and back included, by the device's own
    events; None where a backend has none.
    """

    name: ClassVar[str]
    package: ClassVar[str]
    extra: ClassVar[str]

    def __init__(self, bundle: Bundle, precision: Precision = Precision.FP32) -> None:
        self.bundle = bundle
        self.precision = precision
        self.input = bundle.manifest.input
        self.output = bundle.manifest.output
        self.is_open = False
        self.device_ns: int | None = None

    @classmethod
    def missing(cls) -> str | None:
        """None where the backend's package is installed, else what is missing and the command that adds it."""
        if importlib.util.find_spec(cls.package) is None:
            return f"{cls.package} is not installed: pip install 'derain[{cls.extra}]'"
        return None

    @classmethod
    def limitation(cls) -> tuple[str, str] | None:
        """None where the backend, once installed, runs here; else what it can still do, and in one line why no more."""
        return None

    @classmethod
    def precisions(cls, bundle: Bundle) -> list[Precision]:
        """Those that the bundle has for this backend."""
        return [entry.precision for entry in bundle.manifest.graphs]

    def open(self) -> None:
        """Load the checked graph or plan; ModuleNotFoundError without the backend's package, ValueError if bad."""
        if self.is_open:
            raise RuntimeError(f"engine {self.name} is already open")
        if reason := self.missing():
            raise ModuleNotFoundError(f"engine {self.name}: {reason}")
        start = time.monotonic_ns()
        self._open()
        self.is_open = True
        log.info("opened %s, %s, in %.0f ms", self.name, self.precision, (time.monotonic_ns() - start) / 1e6)

    def warm_up(self, frames: int = 3) -> None:
        """Infer `frames` grey frames, so that the first real one meets allocated memory and settled kernels."""
        grey = np.full(self.input.image_shape, 128, np.uint8)
        for _ in range(frames):
            self.infer(grey)

    def infer(self, image: Image) -> Image:
        """One frame, uint8 C-contiguous in `input.image_shape`, to the clean one in `output.image_shape`.

        The result is the caller's to keep. Raises ValueError for any other array, in or out, and RuntimeError when not
        open.
        """
        if not self.is_open:
            raise RuntimeError(f"engine {self.name} is not open: call open() or use it in a with statement")
        if image.shape != self.input.image_shape or image.dtype != np.uint8:
            seen, expected = f"{image.dtype} {image.shape}", f"uint8 {self.input.image_shape} ({self.input.pixels})"
            raise ValueError(f"engine {self.name}: image is {seen}, expected {expected}: convert it with from_bgr")
        if not image.flags.c_contiguous:
            raise ValueError(f"engine {self.name}: image is not C-contiguous: pass np.ascontiguousarray(image)")
        clean: Image = self._infer(image[np.newaxis])
        if clean.shape != self.output.shape or clean.dtype != np.uint8:
            seen, expected = f"{clean.dtype} {clean.shape}", f"uint8 {self.output.shape} ({self.output.pixels})"
            raise ValueError(f"engine {self.name}: returned {seen}, the manifest says {expected}: export it again")
        return clean.reshape(self.output.image_shape)

    def close(self) -> None:
        """Release what open took; closing a closed engine does nothing."""
        if self.is_open:
            self.is_open = False
            self._close()

    def abandon(self) -> None:
        """Leave what open took to a thread that is still inside `infer`: close does nothing any more."""
        self.is_open = False

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def _open(self) -> None: ...

    @abstractmethod
    def _infer(self, tensor: Image) -> Image: ...

    @abstractmethod
    def _close(self) -> None: ...


def register(name: str) -> Callable[[type[EngineT]], type[EngineT]]:
    """Class decorator: makes an engine known by `name`."""

    def add(backend: type[EngineT]) -> type[EngineT]:
        backend.name = name
        _backends[name] = backend
        return backend

    return add


def create(name: str, bundle: Bundle, precision: Precision = Precision.FP32, **options: Any) -> Engine:
    """The engine called `name`, not yet open; `options` are the backend's own. ValueError for an unknown name."""
    return _backend(name)(bundle, precision, **options)


def precisions(name: str, bundle: Bundle) -> list[Precision]:
    """The precisions of a bundle that the engine called `name` can load. ValueError for an unknown name."""
    return _backend(name).precisions(bundle)


def available() -> dict[str, str | None]:
    """Every backend's name with None where it can be used, else what is missing and the command that adds it."""
    return {name: backend.missing() for name, backend in sorted(_backends.items())}


def limitations() -> dict[str, tuple[str, str]]:
    """The installed backends that cannot run here, by name: what each can still do, and why no more."""
    installed = {name: backend for name, backend in sorted(_backends.items()) if backend.missing() is None}
    return {name: told for name, backend in installed.items() if (told := backend.limitation())}


def _backend(name: str) -> type[Engine]:
    if name not in _backends:
        elsewhere = "; openvino is an engine of `derain-stream`" if name == "openvino" else ""
        raise ValueError(f"engine {name!r} is unknown, known are: {', '.join(sorted(_backends))}{elsewhere}")
    return _backends[name]
