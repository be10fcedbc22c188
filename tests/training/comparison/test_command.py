"""The comparison by its command line, benchmarks/comparison.py."""

import importlib
import json
import os
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml

from derain_tests.comparison import SMALL


@pytest.fixture
def command(images, repository, monkeypatch):
    """benchmarks/comparison.py, which imports its neighbour gpu.py."""
    monkeypatch.syspath_prepend(repository / "benchmarks")
    monkeypatch.setenv("DERAIN_DATA", str(images))
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    return importlib.import_module("comparison")


def test_the_command_line_trains_scores_counts_and_tells(command, tmp_path, capsys, caplog):
    protocol = tmp_path / "p.yaml"
    protocol.write_text(yaml.safe_dump(SMALL | {"systems": {"daiam-nano": SMALL["systems"]["daiam-nano"]}}))

    def told(*arguments: str) -> str:
        command.main([*arguments, "--folder", str(tmp_path / "c")])
        return capsys.readouterr().out

    planned = told("budget", "--minutes", "60", "--protocol", str(protocol))
    assert not [told for told in caplog.messages if told.startswith("iteration")]
    assert planned.endswith("c/protocol.yaml: 8 patches for each of 1 systems\n")
    protocol.unlink()
    assert told("run") == "daiam-nano: 8 of 8 patches\nall systems: complete, to be scored with `evaluate`\n"
    assert told("evaluate").endswith("on 4 pairs; 8 of 8 patches seen\n")
    assert told("cost") == "daiam-nano: 371,456 parameters, 5.6 GMAC\n"
    assert "| `daiam-nano` | 371,456 | 5.6 | — |" in told("table")
    assert Path(told("page").strip()).stat().st_size > 10_000
    with pytest.raises(SystemExit, match="error: no system 'x'"):
        told("train", "--system", "x")


def test_the_command_line_trains_the_systems_it_is_given_and_refuses_to_ignore_them(command, tmp_path, capsys):
    protocol = tmp_path / "p.yaml"
    protocol.write_text(yaml.safe_dump(SMALL))
    shared = ("--protocol", str(protocol), "--folder", str(tmp_path / "c"))
    command.main(["run", "--system", "daiam-nano", *shared])
    told = "daiam-nano: 8 of 8 patches\ndaiam-nano: complete, to be scored with `evaluate`\n"
    assert capsys.readouterr().out == told
    assert [folder.name for folder in (tmp_path / "c").iterdir()] == ["daiam-nano"]
    with pytest.raises(SystemExit, match="error: no system 'x'"):
        command.main(["run", "--system", "x", *shared])
    trains_nothing = ([verb, "--minutes", "5"] for verb in ("evaluate", "prepare", "cost", "table", "page"))
    for wrong in (["cost", "--system", "rescan"], ["run", "--minutes", "-5"], *trains_nothing):
        with pytest.raises(SystemExit, match="2"):
            command.main([*wrong, *shared])


def test_a_student_alone_is_told_whom_it_waits_for(command, tmp_path):
    protocol = tmp_path / "p.yaml"
    protocol.write_text(yaml.safe_dump(SMALL))
    with pytest.raises(SystemExit, match="error: daiam-nano must be trained first"):
        command.main(["run", "--system", "student", "--protocol", str(protocol), "--folder", str(tmp_path / "c")])


def test_what_is_not_there_is_told_and_nothing_is_made(command, tmp_path, capsys):
    protocol = tmp_path / "p.yaml"
    protocol.write_text(yaml.safe_dump(SMALL, sort_keys=False))
    shared = ("--protocol", str(protocol), "--folder", str(tmp_path / "c"))
    for arguments, fault in (
        (["evaluate"], "no system has weights in '.*c': train one first"),
        (["evaluate", "--system", "x"], "no system 'x': expected one of student, rescan, daiam-nano"),
        (["page"], "no system has weights in '.*c': train one first"),
        (["run", "--set", "out=elsewhere"], "--set 'out=elsewhere': the comparison sets out for each system"),
    ):
        with pytest.raises(SystemExit, match=f"^error: {fault}"):
            command.main([*arguments, *shared])
    command.main(["table", *shared])
    assert "| `daiam-nano` | — |" in capsys.readouterr().out
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("name", ["cost.json", "daiam-nano/evaluation.json", "test/test.json"])
@pytest.mark.parametrize(("text", "fault"), [("{", "is no JSON"), ("[]", "holds a list, expected a JSON object")])
def test_a_broken_record_of_the_comparison_is_named(command, trained, tmp_path, name, text, fault):
    protocol = tmp_path / "p.yaml"
    protocol.write_text(yaml.safe_dump(SMALL))
    (tmp_path / "c/daiam-nano").mkdir(parents=True)
    for file in ("weights.safetensors", "config.yaml"):
        shutil.copyfile(trained.folder / "daiam-nano" / file, tmp_path / "c/daiam-nano" / file)
    (tmp_path / "c" / name).parent.mkdir(exist_ok=True)
    (tmp_path / "c" / name).write_text(text)
    verb = "evaluate" if name.startswith("test") else "table"
    with pytest.raises(
        SystemExit, match=rf"^error: .*c/{name} {fault}.*: remove it, and give the command that wrote it"
    ):
        command.main([verb, "--protocol", str(protocol), "--folder", str(tmp_path / "c")])


def test_a_system_that_cannot_be_timed_keeps_its_error_and_the_next_is_timed_once(command, empty, monkeypatch, capsys):
    """As on a GPU, but for the engine."""
    pytest.importorskip("tensorrt_rtx", reason="no TensorRT-RTX to build engines with: pip install 'derain[rtx]'")
    on_cpu = partial(command.milliseconds, engine="onnxruntime", device="cpu", repeats=2)
    here = {"gpu": "one", "torch": "2"}
    for name, value in {"WIDTH": 48, "HEIGHT": 36, "milliseconds": on_cpu, "timed_on": lambda: here}.items():
        monkeypatch.setattr(command, name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    systems = {name: empty.protocol.systems[name] for name in ("rescan", "daiam-nano")}
    some = replace(empty, protocol=empty.protocol.model_copy(update={"systems": systems}))
    some.weights("rescan").parent.mkdir(parents=True)
    some.weights("rescan").write_bytes(b"half a file")
    command.cost(some)
    costs = json.loads((some.folder / "cost.json").read_text())
    assert costs["rescan"]["ms"] is None and "is not a readable safetensors file" in costs["rescan"]["error"]
    assert costs["rescan"]["parameters"] > 0 and costs["daiam-nano"]["ms"] > 0
    command.cost(some)
    assert json.loads((some.folder / "cost.json").read_text()) == costs
    assert capsys.readouterr().out.count("is not a readable safetensors file") == 2
    assert costs["daiam-nano"]["on"] == here
    here = {"gpu": "another", "torch": "2"}
    monkeypatch.setattr(command, "milliseconds", lambda comparison, system: {"ms": None, "error": "broken"})
    command.cost(some)
    assert json.loads((some.folder / "cost.json").read_text())["daiam-nano"]["ms"] is None


def test_what_cost_times_is_made_before_and_once(command, empty, monkeypatch, capsys):
    pytest.importorskip("tensorrt_rtx", reason="no TensorRT-RTX to build engines with: pip install 'derain[rtx]'")
    for name, value in {"WIDTH": 48, "HEIGHT": 36}.items():
        monkeypatch.setattr(command, name, value)
    systems = {name: empty.protocol.systems[name] for name in ("daiam-nano", "student")}
    some = replace(empty, protocol=empty.protocol.model_copy(update={"systems": systems}))
    counted = command.counted(some, "daiam-nano")
    command.prepare(some)
    monkeypatch.delattr(command, "traced")
    assert command.counted(some, "daiam-nano") == counted, "and not while a GPU waits"
    made = some.folder / "cases/daiam-nano/bundle/manifest.json"
    before = made.stat().st_mtime_ns
    command.prepare(some)
    assert made.stat().st_mtime_ns == before
    assert [folder.name for folder in (some.folder / "cases").iterdir()] == ["daiam-nano"]
    assert capsys.readouterr().out == 2 * f"daiam-nano: {some.folder / 'cases/daiam-nano'}\n"
