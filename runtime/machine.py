"""The state of the machine a latency was measured on; a figure without it cannot be compared with another."""

import os
import platform
import shutil
import subprocess
from pathlib import Path

from pydantic import BaseModel, ConfigDict

CPU = Path("/sys/devices/system/cpu/cpu0/cpufreq")
GPU_ANSWERS_S = 10.0
"""A driver that hangs must not cost the measurement."""

GPU_FIELDS = ("name", "driver_version", "pstate", "clocks.sm", "clocks.mem", "power.limit", "temperature.gpu")


class Machine(BaseModel):
    """`cores` are those this process may use; `load` is the average number of busy ones over the last minute.

    None: this machine does not say, as most virtual ones do not of their clocks.
    """

    model_config = ConfigDict(frozen=True)

    system: str
    python: str
    cpu: str
    cores: int
    load: float
    governor: str | None
    clock_mhz: float | None
    gpu: dict[str, str] | None

    @property
    def hardware(self) -> tuple[str | None, ...]:
        """Processor, GPU and its driver: what makes another machine; clocks and temperatures always differ."""
        gpu = self.gpu or {}
        return self.cpu, gpu.get("name"), gpu.get("driver_version")


def machine() -> Machine:
    """This machine, now."""
    clock = _read(CPU / "scaling_cur_freq")
    return Machine(
        system=platform.platform(),
        python=platform.python_version(),
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)),
        load=round(os.getloadavg()[0], 2),
        governor=_read(CPU / "scaling_governor"),
        clock_mhz=float(clock) / 1e3 if clock else None,
        gpu=_gpu(),
    )


def _read(path: Path) -> str | None:
    return path.read_text().strip() if path.is_file() else None


def _cpu() -> str:
    lines = (_read(Path("/proc/cpuinfo")) or "").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model"))]
    return names[0] if names else platform.processor() or platform.machine()


def _gpu() -> dict[str, str] | None:
    """CUDA's first GPU as nvidia-smi sees it; None without one, or where nvidia-smi does not answer.

    That is the first in CUDA_VISIBLE_DEVICES, which CUDA itself reads, else nvidia-smi's number 0. nvidia-smi counts in
    the order of the bus, CUDA from the fastest on: with several kinds of GPU set CUDA_DEVICE_ORDER=PCI_BUS_ID.
    """
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0].strip()
    if not first or shutil.which("nvidia-smi") is None:
        return None
    command = ["nvidia-smi", f"--id={first}", f"--query-gpu={','.join(GPU_FIELDS)}", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=GPU_ANSWERS_S, check=False)
    except subprocess.TimeoutExpired:
        return None
    if answer.returncode != 0:
        return None
    return dict(zip(GPU_FIELDS, (value.strip() for value in answer.stdout.split(",")), strict=False))
