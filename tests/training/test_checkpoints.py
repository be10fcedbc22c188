"""The file that a run resumes from: whole or refused, and no pickle."""

from pathlib import Path

import pytest
import torch

from derain.training.checkpoints import iterations_done, load_checkpoint, pack, save_checkpoint, unpack
from derain_tests.tensors import assert_same


def test_a_tree_comes_back_from_a_checkpoint_bit_for_bit(tmp_path):
    weights = torch.randn(4, 3, 3, 3).to(memory_format=torch.channels_last)
    saved = {
        "global_step": 7,
        "tuple": (0.1, 1e-300, [None, True, "x"]),
        "numbers": {0: {"step": torch.tensor(3.0), "m": weights}, 1: {}},
        "half": torch.randn(5).bfloat16(),
        "empty": torch.zeros(0, 2, dtype=torch.int64),
    }
    save_checkpoint(saved, tmp_path / "c")
    assert_same(load_checkpoint(tmp_path / "c"), saved)
    assert load_checkpoint(tmp_path / "c")["numbers"][0]["m"].is_contiguous(memory_format=torch.channels_last)
    assert iterations_done(tmp_path / "c") == 7 and iterations_done(tmp_path / "none") == 0


def test_what_would_need_a_pickle_or_is_not_finite_is_refused_by_its_place():
    with pytest.raises(TypeError, match=r"^checkpoint\.a\.1 is a Path|^checkpoint\.a\.1 is a PosixPath"):
        pack({"a": [1, Path()]}, {})
    with pytest.raises(ValueError, match=r"^checkpoint\.a is no longer finite, so it is not saved and"):
        pack({"a": torch.tensor([1.0, float("inf")])}, {})
    assert unpack(pack(({"a": 1},), {}), {}) == ({"a": 1},)


def test_a_torn_checkpoint_is_refused_in_one_line(tmp_path):
    torn = tmp_path / "checkpoint.safetensors"
    save_checkpoint({"global_step": 7, "weights": torch.ones(1000)}, torn)
    assert iterations_done(torn) == 7
    torn.write_bytes(torn.read_bytes()[:-1000])
    for read in (load_checkpoint, iterations_done):
        with pytest.raises(ValueError, match=r"checkpoint\.safetensors is damaged") as caught:
            read(torn)
        assert "\n" not in str(caught.value)
