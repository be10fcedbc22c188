"""A run survives anything: whatever ends it, it resumes to the bits of a run that nothing ended."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from derain.training import logs, trainer
from derain.training.checkpoints import iterations_done, load_checkpoint
from derain.training.config import TrainConfig, read_config
from derain.training.records import alone_in
from derain.training.trainer import train
from derain_tests.pictures import write_frames
from derain_tests.tensors import assert_same

ITERATIONS = 8


@pytest.fixture(scope="module")
def images(tmp_path_factory, picture) -> Path:
    root = tmp_path_factory.mktemp("images")
    for folder, count in (("train", 3), ("test", 1)):
        write_frames(root / folder, [picture(10 * count + index, 48, 36) for index in range(count)])
    return root


def tree(images: Path, out: Path, **changes) -> dict:
    return {
        "network": {"name": "daiam-nano"},
        "data": {"root": str(images), "folders": ["train"], "validation": "test", "patch": 32},
        "rain": {"frame_height": 36},
        "optimiser": {"iterations": ITERATIONS, "batch": 2, "learning_rate": 1e-3, "warm_up": 2, "ema_decay": 0.5},
        "machine": {"accelerator": "cpu", "threads": 1},
        "seed": 3,
        "validate_every": 3,
        "checkpoint_every": 2,
        "log_every": 1,
        "out": str(out),
        **changes,
    }


def config(*args, **changes) -> TrainConfig:
    return TrainConfig.model_validate(tree(*args, **changes))


@pytest.fixture(scope="module")
def whole(images, tmp_path_factory) -> Path:
    """The folder of a run that nothing ended."""
    out = tmp_path_factory.mktemp("whole") / "run"
    train(config(images, out))
    return out


def assert_same_run(out: Path, whole: Path) -> None:
    for name in ("metrics.csv", "split.json"):
        assert (out / name).read_text() == (whole / name).read_text(), name
    assert_same(load_file(out / "weights.safetensors"), load_file(whole / "weights.safetensors"))
    ours, theirs = (load_checkpoint(folder / "checkpoint.safetensors") for folder in (out, whole))
    for part in ("state_dict", "current_model_state", "averaging_state", "optimizer_states", "lr_schedulers"):
        assert_same(ours[part], theirs[part])
    assert list(out.glob(".*")) == []


DIE = """
import os, signal, sys

def die():
    os.kill(os.getpid(), signal.SIGKILL)
"""

DIE_IN_THE_SECOND_CHECKPOINTS_WRITE = """
from derain.training import atomic
fsync, checkpoints = os.fsync, 0

def half_written(fd):
    global checkpoints
    name = os.readlink(f"/proc/self/fd/{fd}")
    checkpoints += "checkpoint" in name
    if checkpoints == 2:
        os.ftruncate(fd, os.fstat(fd).st_size // 2)
        die()
    fsync(fd)

atomic.os.fsync = half_written
"""

DIE_BETWEEN_TWO_CHECKPOINTS = """
from derain.training.trainer import Deraining
step = Deraining.training_step

def deadly(self, batch, iteration):
    if self.global_step == 7:
        die()
    return step(self, batch, iteration)

Deraining.training_step = deadly
"""


def killed(how: str, *arguments: str) -> None:
    code = f"{DIE}{how}\nfrom derain.cli.main import main\nsys.argv = {['derain', 'train', *arguments]!r}\nmain()"
    environment = {key: value for key, value in os.environ.items() if key != "DERAIN_DATA"}
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert answer.returncode == -9, answer.stderr


def test_a_run_killed_twice_ends_in_the_bits_of_one_never_killed(images, whole, tmp_path):
    """First half-way through the write of its second checkpoint, then, resumed, between two checkpoints."""
    path, out = tmp_path / "run.yaml", tmp_path / "run"
    path.write_text(yaml.safe_dump(tree(images, out)))
    killed(DIE_IN_THE_SECOND_CHECKPOINTS_WRITE, str(path))
    assert iterations_done(out / "checkpoint.safetensors") == 2
    assert (out / ".checkpoint.safetensors.partial").stat().st_size > 0
    killed(DIE_BETWEEN_TWO_CHECKPOINTS, str(path), "--resume", str(out))
    assert iterations_done(out / "checkpoint.safetensors") == 6
    assert (out / "metrics.csv").read_text() != (whole / "metrics.csv").read_text()
    train(config(images, out), resume=True)
    assert_same_run(out, whole)


def test_slices_of_one_iteration_each_end_in_the_bits_of_one_run(images, whole, tmp_path):
    done = []
    for _ in range(ITERATIONS):
        train(config(images, tmp_path / "run"), resume=bool(done), minutes=1e-9)
        done.append(iterations_done(tmp_path / "run/checkpoint.safetensors"))
    assert done == list(range(1, ITERATIONS + 1))
    assert_same_run(tmp_path / "run", whole)


def test_a_complete_run_that_is_resumed_is_left_as_it_is(images, whole):
    before = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in whole.iterdir()}
    assert train(config(images, whole), resume=True) == whole / "weights.safetensors"
    assert {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in whole.iterdir()} == before


def test_a_run_that_died_before_its_first_checkpoint_resumes_at_its_beginning(images, whole, tmp_path):
    (tmp_path / "run").mkdir()
    train(config(images, tmp_path / "run"), resume=True)
    assert_same_run(tmp_path / "run", whole)


@pytest.mark.parametrize("name", ["checkpoint.safetensors", "weights.safetensors", "metrics.csv", "environment.json"])
def test_a_full_disk_stops_the_run_in_one_line_with_the_mend_and_keeps_what_it_has(name, images, whole, tmp_path):
    out = tmp_path / "run"
    train(config(images, out), minutes=1e-9)
    if name == "environment.json":  # written at a run's beginning only
        (out / "checkpoint.safetensors").unlink()
    good = {file: file.read_bytes() for file in out.iterdir() if file.name in (name, "checkpoint.safetensors")}
    (out / f".{name}.partial").symlink_to("/dev/full")  # where every write fails for want of room
    told = rf"^.*/run/{name}: [\d,]+ bytes cannot be written: No space left on device(; the one before it is kept)?: "
    with pytest.raises(OSError, match=rf"{told}free space on its disk, then go on with --resume {out}$"):
        train(config(images, out), resume=True)
    assert list(out.glob(".*")) == []
    if name != "weights.safetensors":  # the checkpoint of its iteration is written before them
        assert {file: file.read_bytes() for file in good} == good
    train(config(images, out), resume=True)
    assert_same_run(out, whole)


def test_a_loss_that_is_not_finite_keeps_the_last_good_checkpoint(images, whole, tmp_path, monkeypatch):
    out, honest = tmp_path / "run", trainer.derain_loss

    def spoilt(*args):
        terms = honest(*args)
        if iterations_done(out / "checkpoint.safetensors") == 4:
            terms["loss"] = terms["loss"] * float("nan")
        return terms

    monkeypatch.setattr(trainer, "derain_loss", spoilt)
    with pytest.raises(ValueError, match=r"^the loss is nan at iteration 4: lower optimiser\.learning_rate$"):
        train(config(images, out))
    assert iterations_done(out / "checkpoint.safetensors") == 4
    monkeypatch.undo()
    train(config(images, out), resume=True)
    assert_same_run(out, whole)


def test_the_last_iteration_is_validated_whatever_the_interval(whole):
    with safe_open(whole / "weights.safetensors", framework="pt") as file:
        assert file.metadata()["iterations"] == str(ITERATIONS)
    assert (whole / "metrics.csv").read_text().count("\n") == 1 + ITERATIONS + 3  # validated after 3, 6 and 8


def test_a_run_names_the_versions_the_code_and_the_seed_that_made_it(whole):
    noted = json.loads((whole / "environment.json").read_text())
    assert noted["seed"] == 3
    assert {"python", "torch", "lightning", "numpy", "derain", "safetensors"} <= noted.keys()
    assert len(noted["code"]) == 64


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"seed": 4},
            r"^seed is 4, but the run in .* has 3: resume it with its own .*config\.yaml, or start a new run",
        ),
        ({"loss": {"alpha": 0.5}}, r"^loss\.alpha is 0\.5, but the run in .* has 0\.1"),
        ({"network": {"name": "daiam-small"}}, r"^network\.name is 'daiam-small', but the run in .* has 'daiam-nano'"),
        ({"network": {"name": "daiam-nano", "options": {"decoder_steps": 2}}}, r"^network\.options"),
    ],
)
def test_another_configuration_does_not_resume_a_run_and_the_key_is_named(images, whole, changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        train(config(images, whole, **changes), resume=True)
    assert "\n" not in str(caught.value)


def test_the_machine_and_what_is_recorded_may_change(images, whole):
    other = config(images, whole, machine={"accelerator": "cpu", "threads": 2}, checkpoint_every=7, log_every=9)
    assert train(other, resume=True) == whole / "weights.safetensors"


def test_files_that_came_or_went_are_named(images, tmp_path, picture):
    out = tmp_path / "run"
    train(config(images, out), minutes=1e-9)
    extra = images / "train/new.png"
    cv2.imwrite(str(extra), picture(5, 48, 36))
    try:
        with pytest.raises(ValueError, match=r"^train/new\.png is new among the train files since the run in .* began"):
            train(config(images, out), resume=True)
    finally:
        extra.unlink()


def test_a_run_is_neither_overwritten_nor_invented(images, whole, tmp_path):
    with pytest.raises(ValueError, match=rf"holds a run of {ITERATIONS} iterations: go on with it \(--resume"):
        train(config(images, whole))
    with pytest.raises(FileNotFoundError, match=r"no run in '.*nowhere': --resume expects the folder of a run"):
        train(config(images, tmp_path / "nowhere"), resume=True)


def test_a_time_slice_ends_with_weights_even_before_the_first_validation(images, tmp_path):
    weights = train(config(images, tmp_path / "run"), minutes=0)
    checkpoint = load_checkpoint(tmp_path / "run" / "checkpoint.safetensors")
    with safe_open(weights, "pt") as file:
        notes = file.metadata()
        average = {key.removeprefix("network."): value for key, value in checkpoint["state_dict"].items()}
        assert all(torch.equal(file.get_tensor(key), average[key].half()) for key in file.keys())  # noqa: SIM118
    assert (notes["iterations"], notes["measured"]) == ("1", "{}")


def test_loader_workers_change_nothing_of_what_is_learnt(images, whole, tmp_path):
    machine = {"accelerator": "cpu", "threads": 1, "workers": 2}
    train(config(images, tmp_path / "run", machine=machine))
    assert_same_run(tmp_path / "run", whole)


def test_an_accelerator_that_is_not_there_is_refused_before_anything_is_written(images, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"machine\.accelerator is 'gpu', but PyTorch sees none here: take the CPU \("):
        train(config(images, tmp_path / "run", machine={"accelerator": "gpu"}))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("resume", [True, False])
def test_a_complete_run_without_its_checkpoint_is_not_trained_anew(images, whole, tmp_path, resume):
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    (out / "checkpoint.safetensors").unlink()
    with pytest.raises(
        ValueError, match=r"holds the weights of a complete or another run, but not its checkpoint\.saf"
    ):
        train(config(images, out), resume=resume)
    for name in ("weights.safetensors", "metrics.csv"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()


def test_another_runs_weights_are_not_trained_over(images, whole, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    (out / "checkpoint.safetensors").unlink()
    longer = {"iterations": ITERATIONS + 2, "batch": 2, "warm_up": 2}
    with pytest.raises(ValueError, match="holds the weights of a complete or another run"):
        train(config(images, out, optimiser=longer))
    (out / "weights.safetensors").write_bytes(b"torn")
    with pytest.raises(ValueError, match="holds the weights of a complete or another run"):
        train(config(images, out))
    assert (out / "weights.safetensors").read_bytes() == b"torn"


def test_a_complete_run_whose_weights_are_gone_says_so(images, whole, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    (out / "weights.safetensors").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"the run is complete, but .*weights\.safetensors is gone: bring it back"
    ):
        train(config(images, out), resume=True)


def test_a_workers_fault_is_one_line_as_without_workers(images, tmp_path):
    (images / "torn").mkdir()
    for part in ("rainy", "clean"):
        shutil.copytree(images / "train", images / "torn" / part)
    for file in (images / "torn" / "rainy").iterdir():
        file.write_bytes(file.read_bytes()[:-40])
    pairs = {"root": images, "pairs": [{"path": "torn", "layout": "folders"}], "validation": "test", "patch": 32}
    told = []
    for workers in (0, 1):
        machine = {"accelerator": "cpu", "threads": 1, "workers": workers}
        with pytest.raises(ValueError) as caught:
            train(config(images, tmp_path / str(workers), data=pairs, machine=machine))
        told.append(str(caught.value))
    assert told[0] == told[1] and "\n" not in told[1] and "torn/rainy" in told[1]


def test_a_run_killed_between_its_first_validation_and_its_first_checkpoint_begins_again(images, whole, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    (out / "checkpoint.safetensors").unlink()
    with safe_open(out / "weights.safetensors", "pt") as file:
        notes = file.metadata() | {"iterations": "3"}
    save_file(load_file(out / "weights.safetensors"), out / "weights.safetensors", notes)
    train(config(images, out), resume=True)
    assert_same_run(out, whole)


def test_the_weights_are_the_average_that_was_validated_not_the_last_iteration_s(whole):
    saved, checkpoint = load_file(whole / "weights.safetensors"), load_checkpoint(whole / "checkpoint.safetensors")
    average, last = (
        {key.removeprefix("network."): value.half() for key, value in checkpoint[part].items()}
        for part in ("state_dict", "current_model_state")
    )
    assert saved.keys() == average.keys()
    assert all(torch.equal(value, average[key]) for key, value in saved.items())
    assert not any(torch.equal(value, last[key]) for key, value in saved.items() if key.endswith("gates.weight"))


@pytest.mark.parametrize(("number", "workers"), [(signal.SIGTERM, 0), (signal.SIGTERM, 2), (signal.SIGINT, 2)])
def test_a_signal_ends_a_run_with_a_checkpoint_and_says_how_to_go_on(images, whole, tmp_path, number, workers):
    """To all processes of the run, as a terminal sends it; resumed, it ends in the bits of one that nothing ended."""
    path, out = tmp_path / "run.yaml", tmp_path / "run"
    asked = tree(images, out, checkpoint_every=100)
    path.write_text(yaml.safe_dump(asked | {"machine": {"accelerator": "cpu", "threads": 1, "workers": workers}}))
    slow = "from derain.training.trainer import Deraining\nimport time\nstep = Deraining.training_step\n"
    slow += "Deraining.training_step = lambda *a: (print('begun', flush=True), time.sleep(1), step(*a))[2]\n"
    code = f"{slow}import sys\nfrom derain.cli.main import main\nsys.argv = {['derain', 'train', str(path)]!r}\nmain()"
    environment = {key: value for key, value in os.environ.items() if key != "DERAIN_DATA"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    with subprocess.Popen([sys.executable, "-c", code], env=environment, **pipes) as process:
        assert process.stdout.readline() == "begun\n"
        os.killpg(process.pid, number) if workers else process.send_signal(number)
        told, fault = process.communicate(timeout=60)
    assert process.returncode == 128 + number, fault
    done = iterations_done(out / "checkpoint.safetensors")
    assert 0 < done < ITERATIONS
    assert f"iteration {done} of {ITERATIONS}: go on with `derain train" in told
    assert "stopping with a checkpoint" in fault
    assert fault.count("\n") <= 4 and "Traceback" not in fault
    train(config(images, out, checkpoint_every=100), resume=True)
    assert_same(load_file(out / "weights.safetensors"), load_file(whole / "weights.safetensors"))


def test_handlers_of_signals_are_afterwards_what_they_were(images, tmp_path):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    train(config(images, tmp_path / "run"), minutes=0)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.parametrize("fill", ["mine", "deeper/run"])
def test_a_folder_that_holds_no_run_is_not_resumed_and_nothing_is_written_into_it(images, tmp_path, fill):
    (tmp_path / "out" / fill).mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"no run in .*out'"):
        train(config(images, tmp_path / "out"), resume=True)
    assert [file.name for file in (tmp_path / "out").iterdir()] == [fill.partition("/")[0]]


@pytest.mark.parametrize("resume", [True, False])
def test_a_folder_in_which_another_process_trains_is_left_to_it(images, tmp_path, resume):
    out = tmp_path / "run"
    train(config(images, out), minutes=0)
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    with alone_in(out), pytest.raises(ValueError, match=r"^another process trains in .*run: wait until it has ended"):
        train(config(images, out, seed=9), resume=resume)
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before


def test_tensorboard_that_is_not_there_is_told_before_anything_is_written(images, tmp_path, monkeypatch):
    monkeypatch.setattr(logs, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"^tensorboard is true, but it is not installed: pip install tensorboard"):
        train(config(images, tmp_path / "run", tensorboard=True))
    assert not (tmp_path / "run").exists()


def test_a_broken_record_is_named(images, tmp_path):
    out = tmp_path / "run"
    train(config(images, out), minutes=0)
    (out / "environment.json").write_text("")
    with pytest.raises(ValueError, match=r"environment\.json is no JSON .*: bring it back"):
        train(config(images, out), resume=True)


def test_what_a_slice_changed_is_what_the_next_goes_on_with_and_another_precision_is_noted(images, tmp_path, caplog):
    out = tmp_path / "run"
    train(config(images, out), minutes=0)
    written, noted = out / "config.yaml", out / "environment.json"
    machine = {"accelerator": "cpu", "threads": 1, "precision": "bf16-mixed"}
    train(config(images, out, machine=machine, log_every=2), resume=True, minutes=0)
    assert read_config(written) == config(images, out, machine=machine, log_every=2)
    assert "resuming with another precision than before: expect other rounding" in caplog.text
    assert json.loads(noted.read_text())["resumed"] == [{"iteration": 1, "precision": "bf16-mixed"}]
    caplog.clear()
    train(read_config(written), resume=True, minutes=0)
    assert "another" not in caplog.text and len(json.loads(noted.read_text())["resumed"]) == 1


def test_a_version_that_changed_once_is_told_once(images, tmp_path, caplog):
    out = tmp_path / "run"
    train(config(images, out), minutes=0)
    noted = json.loads((out / "environment.json").read_text())
    earlier = {"iteration": 1, "torch": noted["torch"]}, {"iteration": 1, "numpy": noted["numpy"]}
    (out / "environment.json").write_text(json.dumps(noted | {"torch": "1", "numpy": "1", "resumed": earlier}))
    train(config(images, out), resume=True, minutes=0)
    assert "another" not in caplog.text


@pytest.mark.parametrize("name", ["config.yaml", "metrics.csv"])
def test_files_of_ones_own_are_not_overwritten_by_beginning_a_run_among_them(images, tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(ValueError, match=rf"{name} would be overwritten, and .* is no run's folder: name another"):
        train(config(images, tmp_path))
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [(name, "mine")]


def test_a_run_without_a_checkpoint_yet_is_resumed_by_its_own_configuration_alone(images, tmp_path):
    out = tmp_path / "run"
    train(config(images, out), minutes=0)
    for name in ("checkpoint", "weights"):
        (out / f"{name}.safetensors").unlink()
    with pytest.raises(ValueError, match=r"^seed is 4, but the run in .* has 3: resume it with its own "):
        train(config(images, out, seed=4), resume=True)
    assert read_config(out / "config.yaml").seed == 3
    train(config(images, out), resume=True, minutes=0)
