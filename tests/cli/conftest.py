"""The console script where its process is the point, and a bundle of the nano to give to it."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from derain.runtime.bundle import Bundle
from derain_tests.pictures import write_clip
from derain_tests.verbs import Answer

WIDTH, HEIGHT = 32, 24
MAIN = "from derain.cli.main import main\nmain()"


@pytest.fixture
def fresh_derain() -> Callable[..., Answer]:
    """Runs `derain ARGUMENTS…` in a process of its own, without the modules in `missing`."""

    def run(*arguments: object, missing: tuple[str, ...] = ()) -> Answer:
        code = f"import sys\nsys.modules |= dict.fromkeys({missing!r})\n{MAIN}"
        done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)
        return Answer(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def started() -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Starts `derain ARGUMENTS…` in a process of its own, to be signalled; what it prints is in its stdout."""
    processes: list[subprocess.Popen[str]] = []

    def start(*arguments: object) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", MAIN, *map(str, arguments)]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


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
        verb = [sys.executable, "-c", MAIN, *map(str, arguments)]
        space = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", ON_A_SMALL_DISK, "sh", size, str(disk)]
        environment = {key: value for key, value in os.environ.items() if key != "DERAIN_DATA"}
        done = subprocess.run([*space, *verb], capture_output=True, text=True, env=environment)
        if done.returncode == 77 or done.stderr.startswith("unshare"):
            pytest.skip("no small disk to fill: this user may not mount one")
        return Answer(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def nano_weights(lively_weights) -> Path:
    return lively_weights("daiam-nano", half=True)


@pytest.fixture(scope="session")
def nano_bundle(tmp_path_factory, nano_weights) -> Path:
    from derain.export.exporter import export

    out = tmp_path_factory.mktemp("bundle") / "nano"
    export(str(nano_weights), out, (WIDTH, HEIGHT))
    return out


@pytest.fixture
def bundle(nano_bundle, copied) -> Bundle:
    """A copy to spoil."""
    return copied(Bundle.load(nano_bundle))


@pytest.fixture
def clip(tmp_path, picture) -> Path:
    return write_clip(tmp_path / "clip.mkv", [picture(seed, WIDTH, HEIGHT) for seed in range(8)])


@pytest.fixture
def pairs(tmp_path, picture) -> tuple[Path, Path]:
    folders = tmp_path / "rainy", tmp_path / "clean"
    for number, folder in enumerate(folders):
        folder.mkdir()
        for seed in range(2):
            image = np.clip(picture(seed, WIDTH, HEIGHT).astype(int) + 25 * (1 - number), 0, 255)
            cv2.imwrite(str(folder / f"{seed}.png"), image.astype(np.uint8))
    return folders
