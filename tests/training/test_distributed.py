"""Two processes on the CPU train one network: what torchrun starts on several GPUs or machines."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from derain.training import patches
from derain.training.checkpoints import load_checkpoint
from derain.training.config import TrainConfig
from derain.training.patches import RenderedPatches, ResumableLoader, own_share
from derain.training.rain import RainConfig
from derain.training.trainer import train
from derain_tests.pictures import write_frames

PROCESS = """
import os, sys
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
import torch
from safetensors.torch import save_file
from derain.training import atomic, patches, trainer
from derain.training.models import weights
from derain.training.config import read_config

rank, folder, seen = os.environ["RANK"], Path(sys.argv[1]), {}
render, write = patches.render, atomic.write_bytes

def recorded(clean, seeds, config, frames):
    if seeds.__class__.__name__ == "Tensor":
        seen[f"clean{len(seen) // 2}"], seen[f"seeds{len(seen) // 2}"] = clean.clone(), seeds.clone()
    return render(clean, seeds, config, frames=frames)

def finished(self):
    save_file(seen, folder / f"seen{rank}.safetensors")
    end = {key: value.clone(memory_format=torch.contiguous_format) for key, value in self.network.state_dict().items()}
    save_file(end, folder / f"end{rank}.safetensors")

patches.render, trainer.Deraining.on_train_end = recorded, finished
for module in list(sys.modules.values()):
    if getattr(module, "write_bytes", None) is write:
        def noted(path, data):
            (folder / f"writes{rank}.txt").open("a").write(path.name + "\\n")
            write(path, data)
        module.write_bytes = noted
trainer.train(read_config(folder / "run.yaml"), resume=True)
"""


def settings(folder: Path, out: str, **machine) -> dict:
    return {
        "network": {"name": "daiam-nano"},
        "data": {"root": str(folder), "folders": ["train"], "validation": "test", "patch": 32},
        "loss": {"attention": "mse"},  # the Dice term of "balanced" is one of a process's batch, not of the whole one
        "optimiser": {"iterations": 4, "batch": 4, "learning_rate": 1e-3, "warm_up": 0, "ema_decay": 0.0},
        "machine": {"accelerator": "cpu", "threads": 1, **machine},
        "validate_every": 4,
        "out": str(folder / out),
    }


@pytest.fixture(scope="module")
def two(tmp_path_factory, picture) -> Path:
    """A run whose first iteration one process does, and two processes the other three."""
    folder = tmp_path_factory.mktemp("two")
    for name, count in (("train", 3), ("test", 3)):
        write_frames(folder / name, [picture(10 * count + index, 48, 36) for index in range(count)])
    train(TrainConfig.model_validate(settings(folder, "run")), minutes=1e-9)
    (folder / "process.py").write_text(PROCESS)
    (folder / "run.yaml").write_text(yaml.safe_dump(settings(folder, "run", devices=2, strategy="ddp")))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    answer = subprocess.run([*torchrun, str(folder / "process.py"), str(folder)], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    return folder


@pytest.fixture(scope="module")
def alone(two) -> dict[str, torch.Tensor]:
    """What one process sees of the same run: `cleanI` and `seedsI` of its iterations 1, 2 and 3 as 0, 1 and 2."""
    seen, honest = {}, patches.render

    def recorded(clean, seeds, config, frames):
        if isinstance(seeds, torch.Tensor):
            seen[f"clean{len(seen) // 2 - 1}"], seen[f"seeds{len(seen) // 2 - 1}"] = clean.clone(), seeds.clone()
        return honest(clean, seeds, config, frames=frames)

    patches.render = recorded
    try:
        train(TrainConfig.model_validate(settings(two, "alone")))
    finally:
        patches.render = honest
    save_file(seen, two / "alone.safetensors")
    return seen


def test_two_processes_share_each_batch_of_patches_and_its_rain(two, alone):
    first, second = (load_file(two / f"seen{rank}.safetensors") for rank in (0, 1))
    assert len(first) == len(second) == 6
    for key in first:
        assert len(first[key]) == len(second[key]) == 2
        assert not torch.equal(first[key], second[key])
        assert torch.equal(torch.cat([first[key], second[key]]), alone[key])


def test_two_processes_end_in_one_set_of_weights_that_one_process_would_have_learnt(two, alone):
    first, second = (load_file(two / f"end{rank}.safetensors") for rank in (0, 1))
    assert all(torch.equal(first[key], second[key]) for key in first)
    apart, moved = 0.0, 0.0
    start = load_checkpoint(two / "alone" / "checkpoint.safetensors")["current_model_state"]
    torch.manual_seed(0)
    trained = {key.removeprefix("network."): value for key, value in start.items()}
    for key, value in first.items():
        apart += float((value - trained[key]).abs().sum())
        moved += value.numel()
    assert apart / moved < 2e-5  # three steps of Adam move a weight by up to 3e-3


def test_only_the_first_process_writes(two):
    assert "checkpoint.safetensors" in (two / "writes0.txt").read_text()
    assert not (two / "writes1.txt").exists()
    assert (two / "run/metrics.csv").read_text().count("val/gain") == 1


def test_a_validation_over_two_processes_measures_every_frame_once(two, alone):
    from safetensors import safe_open

    measured = []
    for out in ("run", "alone"):
        with safe_open(two / out / "weights.safetensors", framework="pt") as file:
            measured.append(file.metadata()["measured"])
    assert measured[0].split(",")[0] == measured[1].split(",")[0]  # the rainy input's PSNR, to 0.001 dB


def test_a_batch_that_cannot_be_shared_is_refused(picture):
    with pytest.raises(
        ValueError, match=r"^optimiser\.batch is 3, expected a multiple of the 2 processes that share it$"
    ):
        RenderedPatches([picture()], RainConfig(), 3, 16, 1, 0, 1, rank=0, world=2)
    assert [own_share(6, rank, 3) for rank in range(3)] == [slice(0, 2), slice(2, 4), slice(4, 6)]


def test_loader_workers_prepare_the_same_batches_in_the_same_order_wherever_a_run_resumes(picture):
    images = [picture(seed) for seed in range(3)]
    alone = list(RenderedPatches(images, RainConfig(), 2, 24, 1, 0, 7))
    loader = ResumableLoader(RenderedPatches(images, RainConfig(), 2, 24, 1, 0, 7), workers=2, done=lambda: 3)
    loader.load_state_dict(loader.state_dict())
    batches = list(loader)
    assert len(batches) == 4 and len(loader) == 7
    for ours, theirs in zip(batches, alone[3:], strict=True):
        assert all(torch.equal(*both) for both in zip(ours, theirs, strict=True))
