"""`derain train`: configuration, overrides, slices, and a full disk."""

import re
import shutil
import signal

import pytest
import yaml

from derain.training import trainer
from derain_tests.pictures import write_frames


@pytest.fixture
def run_file(tmp_path, picture, monkeypatch):
    """Writes the configuration of three iterations into small/run, with some keys changed, and its images."""
    monkeypatch.delenv("DERAIN_DATA", raising=False)
    for number, name in enumerate(("train", "test")):
        write_frames(tmp_path / "data" / name, [picture(number)])

    def write(**changes):
        tree = {
            "network": {"name": "daiam-nano"},
            "data": {"root": str(tmp_path / "data"), "folders": ["train"], "validation": "test", "patch": 32},
            "rain": {"frame_height": 48},
            "optimiser": {"iterations": 3, "batch": 1},
            "machine": {"accelerator": "cpu", "threads": 1},
            "out": str(tmp_path / "small/run"),
        }
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(tree | changes))
        return tmp_path / "run.yaml"

    return write


def test_train_obeys_the_configuration_the_overrides_and_derain_data(derain, run_file, tmp_path, monkeypatch):
    monkeypatch.setenv("DERAIN_DATA", str(tmp_path / "data"))
    data = {"folders": ["train"], "validation": "test", "patch": 32}
    path = run_file(data=data, optimiser={"iterations": 9, "batch": 1}, out=str(tmp_path / "run"))
    out = derain("train", path, "--set", "optimiser.iterations=2", "--set", "seed=5").told
    weights = tmp_path / "run/weights.safetensors"
    assert f"derain export {weights} --out BUNDLE" in out
    resolved = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    assert (resolved["optimiser"]["iterations"], resolved["seed"]) == (2, 5)
    assert resolved["data"]["root"] == str(tmp_path / "data")


def test_what_the_configuration_names_goes_before_derain_data(derain, run_file, tmp_path, monkeypatch):
    monkeypatch.setenv("DERAIN_DATA", str(tmp_path))
    assert derain("train", run_file(), "--set", "optimiser.iterations=1").status == 0
    resolved = yaml.safe_load((tmp_path / "small/run/config.yaml").read_text())
    assert resolved["data"]["root"] == str(tmp_path / "data")


@pytest.mark.parametrize("named", ["in the file", "in an override", "nowhere"])
def test_a_root_is_the_last_one_named_and_derain_datas_where_none_is(named, derain, run_file, tmp_path, monkeypatch):
    for root in ("file", "environment", "override"):
        shutil.copytree(tmp_path / "data", tmp_path / root)
    monkeypatch.setenv("DERAIN_DATA", str(tmp_path / "environment"))
    folders = {"folders": ["train"], "validation": "test", "patch": 32}
    in_file = run_file(data={"root": str(tmp_path / "file"), **folders})
    given = {"root": str(tmp_path / "override"), **folders} if named == "in an override" else folders
    options = () if named == "in the file" else ("--set", f"data={yaml.safe_dump(given, default_flow_style=True)}")
    assert derain("train", in_file, *options, "--set", "optimiser.iterations=1").status == 0
    resolved = yaml.safe_load((tmp_path / "small/run/config.yaml").read_text())
    wanted = {"in the file": "file", "in an override": "override", "nowhere": "environment"}[named]
    assert resolved["data"]["root"] == str(tmp_path / wanted)


def test_a_run_is_not_begun_from_the_file_its_resolved_configuration_goes_to(derain, run_file, tmp_path):
    assert derain("train", run_file(), "--set", "optimiser.iterations=1").status == 0
    own = (tmp_path / "small/run/config.yaml").read_bytes()
    again = derain("train", tmp_path / "small/run/config.yaml", "--set", "seed=9")
    assert "is where the resolved configuration goes and would be overwritten" in again.fault
    assert (tmp_path / "small/run/config.yaml").read_bytes() == own


def test_a_folder_is_the_one_that_was_named_whatever_yaml_would_read(derain, run_file, tmp_path, monkeypatch):
    path = run_file(data=None, optimiser={"iterations": 1, "batch": 1}, out=str(tmp_path / "2026-11-24"))
    (tmp_path / "data").rename(tmp_path / "pics #2")
    monkeypatch.setenv("DERAIN_DATA", str(tmp_path / "pics #2"))
    data = ("--set", "data.folders=[train]", "--set", "data.validation=test", "--set", "data.patch=32")
    assert derain("train", path, *data).status == 0
    resolved = yaml.safe_load((tmp_path / "2026-11-24/config.yaml").read_text())
    assert resolved["data"]["root"] == str(tmp_path / "pics #2")
    monkeypatch.chdir(tmp_path)
    assert derain("train", "2026-11-24/config.yaml", "--resume", "2026-11-24").status == 0


def test_a_wrong_configuration_is_told_by_its_key_with_what_was_expected(derain, run_file, tmp_path):
    path = run_file()
    assert "seed is {'x': 1}: input should be a valid integer" in derain("train", path, "--set", "seed.x=1").fault
    assert (
        "network.depth is unknown, known are: name, options, init, start"
        in derain("train", path, "--set", "network.depth=3").fault
    )
    assert "no configuration" in derain("train", tmp_path / "none.yaml").fault


def test_the_command_told_after_a_slice_goes_on_with_what_was_set(derain, run_file, tmp_path):
    out = derain("train", run_file(checkpoint_every=100), "--set", "optimiser.batch=2", "--minutes", 0).told
    command = re.search(r"iteration 1 of 3: go on with `derain (.*)`", out)[1].split()
    weights = f"{tmp_path}/small/run/weights.safetensors"
    assert f"complete after 3 iterations: export {weights} with" in derain(*command).told


def test_a_full_disk_under_a_run_is_told_with_the_mend_and_leaves_what_was_logged(small_disk, run_file, tmp_path):
    answer = small_disk("500k", "train", run_file(checkpoint_every=100, tensorboard=True))
    run = tmp_path / "small/run"
    told, mend = answer.fault.split(" bytes cannot be written: No space left on device: ")
    assert told.startswith(f"{run}/weights.safetensors: ")
    assert mend == f"free space on its disk, then go on with --resume {run}"
    assert f"{run}/metrics.csv" in answer.out and "partial" not in answer.out


def test_a_configuration_of_ones_own_is_not_overwritten_by_resuming_where_no_run_is(derain, run_file, tmp_path):
    (tmp_path / "proj").mkdir()
    own = run_file().rename(tmp_path / "proj/config.yaml")
    before = own.read_bytes()
    assert "would be overwritten" in derain("train", own, "--resume", tmp_path / "proj").fault
    assert own.read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        (["data.folders=[]"], "data.folders is []"),
        (["machine.precision=16-mixed"], "machine.precision is '16-mixed', which wants a GPU"),
        (["data.pairs=[{layout: folders, path: .}]", "data.validation=none"], "data.validation names 'none', which is"),
    ],
)
def test_what_cannot_be_trained_is_told_by_its_key(derain, run_file, tmp_path, changes, fault):
    for side in ("rainy", "clean"):
        (tmp_path / "data" / side).symlink_to(tmp_path / "data/train")
    assert fault in derain("train", run_file(), *(word for change in changes for word in ("--set", change))).fault


def test_a_run_that_would_go_into_a_file_is_refused(derain, run_file):
    path = run_file()
    assert f"out is '{path}', which is a file" in derain("train", path, "--set", f"out={path}").fault


def test_a_held_out_picture_smaller_than_the_network_takes_is_told(derain, run_file, tmp_path, picture):
    write_frames(tmp_path / "data/test", [picture(3, 3, 3)])
    fault = derain("train", run_file(), "--set", "optimiser.iterations=1").fault
    assert "a held-out picture is 3x3, smaller than the 4 pixels that daiam-nano takes at least" in fault


def test_a_broken_picture_is_told_in_one_line_of_ours_alone(fresh_derain, run_file, tmp_path):
    broken = tmp_path / "data/train/000.png"
    broken.write_bytes(broken.read_bytes()[:-40])
    assert f"{broken} cannot be decoded as a whole image" in fresh_derain("train", run_file()).fault


def test_ctrl_c_before_the_first_iteration_says_how_to_go_on(derain, run_file, tmp_path, monkeypatch):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    path, run = run_file(), tmp_path / "small/run"
    with monkeypatch.context() as early:
        early.setattr(trainer, "find_dataset", interrupted)
        answer = derain("train", path)
    assert (answer.status, answer.out) == (130, f"ended before the run in {run} began: give the same command again\n")
    handler = signal.getsignal(signal.SIGINT)
    try:
        with monkeypatch.context() as late:
            late.setattr(trainer.Deraining, "configure_optimizers", interrupted)
            answer = derain("train", path)
    finally:
        signal.signal(signal.SIGINT, handler)  # which Lightning turns off
    go_on = f"train {run}/config.yaml --resume {run}"
    assert (answer.status, answer.out) == (130, f"iteration 0 of 3: go on with `derain {go_on}`\n")
    assert "complete after 3 iterations" in derain(*go_on.split()).told
