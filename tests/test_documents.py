"""What README and the other documents say of the code: verbs and flags, scripts, figures, and code that runs."""

import os
import re
import shlex
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import typer

from derain.cli.main import app
from derain.export.exporter import export
from derain.runtime.bundle import Bundle
from derain.runtime.shared_frames import SharedFrames
from derain.training.models import COMPACT_PEERS, build
from derain.training.models.registry import names

DOCUMENTS = ("README.md", "runtime/*.md", "runtime/native/*.md", "training/*.md", "training/weights/*.md")


@pytest.fixture(scope="module")
def documents(repository) -> dict[str, str]:
    found = {str(path.relative_to(repository)): path for pattern in DOCUMENTS for path in repository.glob(pattern)}
    assert len(found) >= 7
    return {name: path.read_text() for name, path in found.items()}


@pytest.fixture(scope="module")
def verbs() -> dict[str, set[str]]:
    """Each verb's flags."""
    commands = typer.main.get_command(app).commands
    return {
        name: {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}
        for name, command in commands.items()
    }


def commands(text: str, program: str) -> list[list[str]]:
    """The command lines of a document that begin with `program`, in blocks and in the running text."""
    text = text.replace("\\\n", " ")
    lines = [line.strip() for block in re.findall(r"```\w*\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    lines += [" ".join(span.split()) for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", text)]
    return [shlex.split(line, comments=True) for line in lines if line.startswith(f"{program} ")]


def test_every_verb_and_flag_that_is_written_down_is_there(documents, verbs):
    seen = 0
    for document, text in documents.items():
        for _, *words in commands(text, "derain"):
            words = [word for word in words if word not in ("--debug", "--version")]
            verb, *rest = words or ["doctor"]
            if verb in ("VERB", "--help"):
                continue
            assert verb in verbs, f"{document}: derain {verb}"
            flags = {word.partition("=")[0] for word in rest if word.startswith("--")}
            assert flags <= verbs[verb] | {"--help"}, f"{document}: derain {' '.join(words)}"
            seen += 1
    assert seen > 40


def test_every_script_and_its_verb_that_is_written_down_is_there(documents, repository):
    seen = 0
    for document, text in documents.items():
        for _, script, *words in commands(text, "python"):
            if not script.endswith(".py"):
                continue
            source = (repository / script).read_text()
            for word in words[:1]:
                assert word.startswith("-") or f'"{word}"' in source, f"{document}: {script} {word}"
            for flag in (word for word in words if word.startswith("--")):
                assert f'"{flag}"' in source, f"{document}: {script} {flag}"
            seen += 1
    assert seen > 8


def test_every_file_that_is_linked_to_is_there(documents, repository):
    for document, text in documents.items():
        for target in re.findall(r"\]\(([^)#]+)\)", text):
            assert target.startswith("http") or (repository / document).parent.joinpath(target).exists(), target
    headings = {
        (repository / name).resolve(): {
            re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
            for title in re.findall(r"^#+ (.*)", text, re.MULTILINE)
        }
        for name, text in documents.items()
    }
    for document, text in documents.items():
        for target, heading in re.findall(r"\]\(([^)#]*)#([^)]+)\)", text):
            place = (repository / document).parent / target if target else repository / document
            assert heading in headings[place.resolve()], f"{document}: {target}#{heading}"


def test_the_table_of_networks_is_whole_and_its_parameters_are_right(documents):
    text = documents["README.md"]
    rows = re.findall(r"^\| (`[^|]+) \| ([\d, ]+) \|", text[text.index("## Networks") :], re.MULTILINE)
    told = {
        name: int(count.replace(",", ""))
        for these, counts in rows
        for name, count in zip(re.findall(r"`([^`]+)`", these), re.split(r", (?=\d)", counts) * 3, strict=False)
    }
    assert {name for name in names() if name not in told} == {"dam-nano", "d-daiam-nano", *COMPACT_PEERS}
    for name, count in told.items():
        assert sum(parameter.numel() for parameter in build(name).parameters()) == count, name


def test_the_python_of_the_readme_runs(documents, tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", documents["README.md"], re.DOTALL)
    monkeypatch.chdir(tmp_path)
    export("daiam-nano", Path("bundle"), (64, 48))
    cv2.imwrite("rainy.png", np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8))
    done: dict[str, object] = {}
    exec(code, done)
    assert done["clean"].shape == (48, 64, 3)


def test_the_reader_and_the_writer_of_shared_frames_that_are_written_down_run(documents, tmp_path, monkeypatch):
    name = repr(f"derain-test-{os.getpid()}")
    reader, writer = re.findall(r"```python\n(.*?)```", documents["runtime/STREAMS.md"], re.DOTALL)
    monkeypatch.chdir(tmp_path)
    export("daiam-nano", Path("bundle"), (64, 48))
    names = {"Bundle": Bundle, "SharedFrames": SharedFrames, "image": np.full((48, 64, 3), 7, np.uint8)}
    publishing, _, closing = writer.partition("ring.close()")
    exec(publishing.replace('"camera"', name), names)
    try:
        done: dict[str, object] = {}
        exec(reader.replace('"clean"', name), done)
    finally:
        exec(f"ring.close(){closing}", names)
    number, captured_ns, image, raw = done["newest"]
    assert (number, raw) == (0, False) and 0 < captured_ns <= time.monotonic_ns()
    assert image.shape == (48, 64, 3) and (image == 7).all()
