"""The bundle: a folder with one graph a precision and a manifest that says everything a runtime must know.

The manifest is read and checked once, here; every file it names is checked against its SHA-256 before use.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import Self

from pydantic import ValidationError

from derain.runtime.atomic import check_directory_place, new_directory
from derain.runtime.faults import first_fault
from derain.runtime.manifest import EngineEntry, GraphEntry, Manifest, ManifestContent, Precision, Quality

MANIFEST = "manifest.json"
KEY = b'"derain_version"'
"""In a bundle's manifest: web pages and browsers' extensions have a file of that name as well."""


class Bundle:
    """A bundle on disk whose manifest has been checked; `file` and `graph` check a file when it is first asked for."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read and check `path`/manifest.json.

        Raises FileNotFoundError where there is no bundle and ValueError where the manifest is not one this version
        understands; both are one line with the mend.
        """
        path = Path(path)
        manifest = path / MANIFEST
        if not manifest.is_file():
            if path.is_file() or (path.is_dir() and any(path.iterdir())):
                mend = "name one, or make one elsewhere with `derain export … --out FOLDER`"
                raise FileNotFoundError(f"{path}: has no {MANIFEST}, so it is no bundle: {mend}")
            raise FileNotFoundError(f"{path}: no such bundle: make one with `derain export … --out {path}`")
        try:
            return cls(path, Manifest.model_validate_json(manifest.read_bytes(), strict=True))
        except ValidationError as error:
            mend = _again(path) if KEY in manifest.read_bytes() else f"remove {quote(str(path))} and {_again(path)}"
            raise ValueError(f"{manifest}: {first_fault(error)}: {mend}") from error

    def names(self) -> list[str]:
        """Of the bundle's own files."""
        return [MANIFEST, *self.manifest.files]

    def file(self, name: str) -> Path:
        """The path of a file the manifest names, after checking its size and SHA-256: an engine is opened again too."""
        path = self.path / name
        if name not in self.manifest.files:
            raise ValueError(f"{path}: not in the manifest, which names {', '.join(sorted(self.manifest.files))}")
        expected = self.manifest.files[name]
        if not path.is_file():
            raise FileNotFoundError(f"{path}: missing, though the manifest names it: {_again(self.path)}")
        if (size := path.stat().st_size) != expected.bytes:
            raise ValueError(f"{path}: {size} bytes, the manifest says {expected.bytes}: {_again(self.path)}")
        if (digest := _sha256(path)) != expected.sha256:
            seen, wanted = digest[:12], expected.sha256[:12]
            raise ValueError(f"{path}: SHA-256 is {seen}…, the manifest says {wanted}…: {_again(self.path)}")
        return path

    def graph(self, precision: Precision = Precision.FP32) -> Path:
        """The checked ONNX graph of a precision; ValueError where the bundle has none."""
        for entry in self.manifest.graphs:
            if entry.precision == precision:
                return self.file(entry.file)
        made_by_export = precision is Precision.FP32  # which replaces the bundle with all that was calibrated and built
        calibrate = f"`derain calibrate {quote(str(self.path))} --precision {precision} --frames …`"
        mend = "`derain export …`" if made_by_export else calibrate
        present = ", ".join(entry.precision for entry in self.manifest.graphs) or "none"
        raise ValueError(f"{self.path}: no {precision} graph, the bundle has {present}: make one with {mend}")

    @classmethod
    def check_place(cls, directory: Path) -> None:
        """Raise OSError where `write` and `add` could not put a bundle: to be called before the work, not after it."""
        check_directory_place(directory)
        _strangers(directory, ())

    @classmethod
    def write(cls, directory: Path | str, description: ManifestContent, files: Mapping[str, bytes | Path]) -> Self:
        """Write a bundle whole: `files` maps every name the description names to its bytes or to a file to copy.

        The folder appears by rename, so that a reader never sees half of it. An older bundle of that name is replaced,
        what its manifest never named stays; any other file or non-empty folder there is refused with FileExistsError.
        """
        directory = Path(directory)
        cls.check_place(directory)
        directory.resolve().parent.mkdir(parents=True, exist_ok=True)
        with _one_at_a_time(directory):
            return cls._write(directory, description, files)

    @classmethod
    def _write(cls, directory: Path, description: ManifestContent, files: Mapping[str, bytes | Path]) -> Self:
        strangers = _strangers(directory, files)
        with new_directory(directory) as folder:
            for path in strangers:
                if path.is_dir() and not path.is_symlink():
                    shutil.copytree(path, folder / path.name, symlinks=True)
                else:
                    shutil.copy2(path, folder / path.name, follow_symlinks=False)
            for name, content in files.items():
                if isinstance(content, Path):
                    shutil.copyfile(content, folder / name)
                else:
                    (folder / name).write_bytes(content)
            entries = {
                name: {"sha256": _sha256(folder / name), "bytes": (folder / name).stat().st_size} for name in files
            }
            manifest = Manifest.model_validate({**description.model_dump(exclude={"files"}), "files": entries})
            (folder / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
        return cls(directory, manifest)

    def add(
        self,
        files: Mapping[str, bytes | Path],
        *,
        graphs: Iterable[GraphEntry] = (),
        engines: Iterable[EngineEntry] = (),
        quality: Iterable[Quality] = (),
    ) -> "Bundle":
        """Write this bundle again with more in it, and return the new one.

        A new graph takes the place of the one in its precision, an engine that of its file, a quality that of its
        frames and precision; files nothing names any more are left behind, and what the bundle never named stays. What
        an old graph was the source of goes with it: its engines and quality, and with FP32's bytes those of every
        precision and the graphs themselves.

        Another process may have added to the bundle since this one was loaded: what it added stays.

        Raises:
            ValueError: what the new things were made from, the FP32 graph or an engine's, has changed since.
        """
        engines = tuple(engines)
        with _one_at_a_time(self.path):
            now = Bundle.load(self.path)
            sources = {Precision.FP32, *(entry.precision for entry in engines)}
            for entry in self.manifest.graphs:
                if entry.precision in sources and now.manifest.files.get(entry.file) != self.manifest.files[entry.file]:
                    raise ValueError(f"{self.path / entry.file}: another graph than this began with: run it again")
            return now._with(files, tuple(graphs), engines, tuple(quality))

    def _with(
        self,
        files: Mapping[str, bytes | Path],
        graphs: tuple[GraphEntry, ...],
        engines: tuple[EngineEntry, ...],
        quality: tuple[Quality, ...],
    ) -> "Bundle":
        old = self.manifest
        current = {entry.precision: entry for entry in (*old.graphs, *graphs)}
        digests = {name: entry.sha256 for name, entry in old.files.items()}
        digests |= {name: _sha256(content) for name, content in files.items()}
        changed = {
            e.precision for e in old.graphs if digests.get(current[e.precision].file) != old.files[e.file].sha256
        }
        stale = set(Precision) if Precision.FP32 in changed else changed
        made = changed.union(entry.precision for entry in graphs)
        new_graphs = {name: entry for name, entry in current.items() if name in made or name not in stale}
        old_engines = (entry for entry in old.engines if entry.precision not in stale)
        old_quality = (entry for entry in old.quality if entry.precision not in stale)
        new_engines = {entry.file: entry for entry in (*old_engines, *engines)}
        new_quality = {(entry.frames, entry.precision): entry for entry in (*old_quality, *quality)}
        description = ManifestContent.model_validate(
            old.model_dump(exclude={"files"})
            | {
                "graphs": tuple(new_graphs.values()),
                "engines": tuple(new_engines.values()),
                "quality": tuple(new_quality.values()),
            }
        )
        kept = {name: self.file(name) for name in old.files if name in description.named_files and name not in files}
        return Bundle._write(self.path, description, {**kept, **files})


def _strangers(directory: Path, ours: Iterable[str]) -> list[Path]:
    """What lies in a bundle's place and is none of its files; FileExistsError where that place is something else's."""
    if not directory.is_file() and not (directory.is_dir() and any(directory.iterdir())):
        return []
    manifest = directory / MANIFEST
    if not manifest.is_file():
        raise FileExistsError(f"{directory}: exists and is no bundle (it has no {MANIFEST}): choose another folder")
    written = manifest.read_bytes()
    if KEY not in written:
        raise FileExistsError(f"{directory}: exists and its {MANIFEST} is no bundle's: choose another folder")
    try:
        named = set(json.loads(written)["files"])
    except (ValueError, TypeError, KeyError):  # a damaged one: whatever lies there may be the user's
        named = set()
    return [path for path in directory.iterdir() if path.name not in {MANIFEST, *named, *ours}]


@contextmanager
def _one_at_a_time(bundle: Path) -> Iterator[None]:
    """Wait until no other process writes a bundle of this folder: a lock on the folder, which leaves no file."""
    folder = os.open(bundle.resolve().parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _sha256(content: Path | bytes) -> str:
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    with content.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _again(path: Path) -> str:
    return f"export it again with `derain export … --out {quote(str(path))}`"
