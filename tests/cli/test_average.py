"""`derain average`: what its file may not be."""

import shutil


def test_a_mean_is_written_over_none_of_its_runs(derain, nano_weights, tmp_path):
    runs = [shutil.copyfile(nano_weights, tmp_path / f"{number}.safetensors") for number in range(2)]
    before = [run.read_bytes() for run in runs]
    assert (
        "is read by this run, which would replace it: give another --out"
        in derain("average", *runs, "--out", runs[1]).fault
    )
    assert [run.read_bytes() for run in runs] == before
    assert "the mean of 2 runs" in derain("average", *runs, "--out", tmp_path / "mean.safetensors").told


def test_a_place_that_takes_no_file_is_told_before_anything_is_read(derain, tmp_path):
    assert f"{tmp_path} is a folder: name a file" in derain("average", "nothing", "--out", tmp_path).fault
