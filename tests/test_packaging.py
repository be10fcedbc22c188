"""What a clone and an installation are made of."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from derain.cli.extras import EXTRAS, REQUIREMENTS

LARGEST_FILE = 1_000_000
LARGEST_WEIGHTS = 16_000_000
STAGES = ("calibration", "cli", "export", "runtime", "training")


@pytest.fixture(scope="module")
def project(repository: Path) -> dict:
    return tomllib.loads((repository / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def visible_files(repository: Path) -> list[Path]:
    """What git tracks or would add."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        answer = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no git repository here to list the files of: {error}")
    return [repository / name for name in answer.stdout.splitlines() if (repository / name).is_file()]


def test_every_folder_with_python_files_is_a_package_that_gets_installed(project, repository):
    folders = {file.parent for stage in STAGES for file in (repository / stage).rglob("*.py")}
    on_disk = {".".join(("derain", *folder.relative_to(repository).parts)) for folder in folders}
    assert set(project["tool"]["setuptools"]["packages"]) == on_disk
    assert {"derain.training.weights", "derain.runtime.engines"} <= on_disk
    assert set(project["tool"]["setuptools"]["package-dir"]) == {f"derain.{stage}" for stage in STAGES}
    assert [folder for folder in folders if not (folder / "__init__.py").is_file()] == []


def test_no_file_is_over_a_megabyte_but_weights_which_may_have_16(visible_files):
    assert len(visible_files) > 50
    for file in visible_files:
        most = LARGEST_WEIGHTS if file.suffix == ".safetensors" else LARGEST_FILE
        assert file.stat().st_size <= most, file


def test_none_of_the_borrowed_images_lie_in_the_repository(visible_files, data_root):
    borrowed = {file.name for file in data_root.rglob("*") if file.is_file()} - {"MANIFEST.md"}
    assert [file for file in visible_files if file.name in borrowed] == []


def test_nothing_is_unpickled(visible_files, repository):
    pickles = re.compile(r"\bimport (pickle|dill|joblib|shelve)|\btorch\.(load|save)\(|allow_pickle\s*=\s*True")
    sources = [file for file in visible_files if file.suffix == ".py" and file.parts[-2] != "tests"]
    sources = [file for file in sources if repository / "tests" not in file.parents]
    assert len(sources) > 40
    assert [str(file) for file in sources if pickles.search(file.read_text())] == []
    assert [file for file in visible_files if file.suffix in (".pt", ".pth", ".pkl", ".ckpt", ".bin")] == []


def test_every_extra_that_a_message_names_exists(visible_files, project, repository):
    """`pip install 'derain[x]'` with an unknown x installs nothing and only warns."""
    from derain.runtime import engines

    extras = set(project["project"]["optional-dependencies"])
    assert {*EXTRAS.values(), *REQUIREMENTS} <= extras
    assert {backend.extra for backend in engines.base._backends.values()} <= extras
    sources = "\n".join((file.read_text()) for file in visible_files if file.suffix in (".py", ".md"))
    named = {extra for found in re.findall(r"derain\[([a-z,]+)\]", sources) for extra in found.split(",")}
    assert named - extras == {"x"}  # the one above


BLOCKER = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "onnx", "onnxscript", "lightning", "skimage", "safetensors", "yaml"}:
            raise ImportError(f"{name} was imported")

sys.meta_path.insert(0, Blocker())
"""


def blocked(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", BLOCKER + code], capture_output=True, text=True)


def test_the_blocker_of_the_next_tests_blocks():
    assert "torch was imported" in blocked("import torch").stderr


def test_the_whole_runtime_imports_without_torch_and_onnx():
    code = """
import importlib, pkgutil, derain.runtime
names = [module.name for module in pkgutil.walk_packages(derain.runtime.__path__, "derain.runtime.")]
for name in names:
    importlib.import_module(name)
print(len(names))
"""
    answer = blocked(code)
    assert answer.returncode == 0, answer.stderr
    assert int(answer.stdout) >= 15


def test_the_front_door_opens_without_torch_and_onnx():
    answer = blocked("import sys\nfrom derain.cli.main import main\nsys.argv = ['derain', '--help']\nmain()")
    assert answer.returncode == 0, answer.stderr
    assert "export" in answer.stdout


def test_the_extras_that_missing_packages_are_told_by_are_those_of_the_project(project):
    for extra, modules in REQUIREMENTS.items():
        listed = project["project"]["optional-dependencies"][extra]
        named = {re.split(r"[<>=\[]", requirement)[0] for requirement in listed} - {"derain"}
        assert set(modules.values()) == named, extra
