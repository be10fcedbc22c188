"""The console script in this process, and a bundle of the nano to give to it."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from derain.runtime.bundle import Bundle

WIDTH, HEIGHT = 32, 24


@dataclass(frozen=True)
class Answer:
    status: int
    out: str
    err: str

    @property
    def fault(self) -> str:
        """The one line on stderr that told it; anything else fails the test."""
        assert self.status == 1, (self.status, self.err)
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("error: ")
        assert "Traceback" not in self.err + self.out
        assert "unexpected" not in lines[0]
        return lines[0].removeprefix("error: ")


@pytest.fixture
def derain(monkeypatch, capfd) -> Callable[..., Answer]:
    """Runs `derain ARGUMENTS…` through main(), with the file descriptors captured: C++ libraries write to them too."""

    def run(*arguments: object) -> Answer:
        from derain.cli.main import main

        monkeypatch.setattr(sys, "argv", ["derain", *map(str, arguments)])
        capfd.readouterr()
        try:
            main()
            status = 0
        except SystemExit as end:
            status = int(end.code or 0)
        captured = capfd.readouterr()
        return Answer(status, captured.out, captured.err)

    return run


@pytest.fixture
def fresh_derain() -> Callable[..., Answer]:
    """Runs `derain ARGUMENTS…` in a process of its own, without the modules in `missing`."""

    def run(*arguments: object, missing: tuple[str, ...] = ()) -> Answer:
        code = f"import sys\nsys.modules |= dict.fromkeys({missing!r})\nfrom derain.cli.main import main\nmain()"
        done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)
        return Answer(done.returncode, done.stdout, done.stderr)

    return run


ON_A_SMALL_DISK = """
mount -t tmpfs -o size="$1" none "$2" || exit 77
disk="$2"; shift 2
"$@"; status=$?
find "$disk" -type f
exit $status
"""


@pytest.fixture
def small_disk(tmp_path) -> Callable[..., Answer]:
    """Runs `derain ARGUMENTS…` where the folder `small` in tmp_path is a disk of a size, and lists the files left."""
    disk = tmp_path / "small"
    disk.mkdir()

    def run(size: str, *arguments: object) -> Answer:
        verb = [sys.executable, "-c", "from derain.cli.main import main\nmain()", *map(str, arguments)]
        space = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", ON_A_SMALL_DISK, "sh", size, str(disk)]
        environment = {key: value for key, value in os.environ.items() if key != "DERAIN_DATA"}
        done = subprocess.run([*space, *verb], capture_output=True, text=True, env=environment)
        if done.returncode == 77 or done.stderr.startswith("unshare"):
            pytest.skip("no small disk to fill: this user may not mount one")
        return Answer(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def nano_weights(tmp_path_factory, lively) -> Path:
    from derain.training.models import build
    from derain.training.models.checkpoint import save_weights

    path = tmp_path_factory.mktemp("weights") / "nano.safetensors"
    save_weights(path, lively(build("daiam-nano")), "daiam-nano", {}, torch.float16)
    return path


@pytest.fixture(scope="session")
def nano_bundle(tmp_path_factory, nano_weights) -> Path:
    from derain.export.exporter import export

    out = tmp_path_factory.mktemp("bundle") / "nano"
    export(str(nano_weights), out, (WIDTH, HEIGHT))
    return out


@pytest.fixture
def bundle(nano_bundle, tmp_path) -> Bundle:
    """A copy to spoil."""
    whole = Bundle.load(nano_bundle)
    return Bundle.write(tmp_path / "bundle", whole.manifest, {name: whole.file(name) for name in whole.manifest.files})


@pytest.fixture
def clip(tmp_path, picture) -> Path:
    path = tmp_path / "clip.mkv"
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"FFV1"), 25, (WIDTH, HEIGHT))
    for seed in range(8):
        writer.write(picture(seed, WIDTH, HEIGHT))
    writer.release()
    return path


@pytest.fixture
def pairs(tmp_path, picture) -> tuple[Path, Path]:
    folders = tmp_path / "rainy", tmp_path / "clean"
    for number, folder in enumerate(folders):
        folder.mkdir()
        for seed in range(2):
            image = np.clip(picture(seed, WIDTH, HEIGHT).astype(int) + 25 * (1 - number), 0, 255)
            cv2.imwrite(str(folder / f"{seed}.png"), image.astype(np.uint8))
    return folders
