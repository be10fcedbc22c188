"""The GPU's benchmark as far as a CPU can go: cases, rows, and that no failure of one engine costs the others."""

import gc
import json
import os
import subprocess
import sys
import time
import weakref
from contextlib import nullcontext
from importlib.metadata import PackageNotFoundError
from types import SimpleNamespace

import numpy as np
import pytest
import torch


@pytest.fixture(scope="module")
def gpu(repository):
    """benchmarks/gpu.py, imported as its own scripts import it."""
    sys.path.insert(0, str(repository / "benchmarks"))
    import gpu

    yield gpu
    sys.path.remove(str(repository / "benchmarks"))


@pytest.fixture(scope="module")
def case(gpu, tmp_path_factory):
    """A case wider than the corner on which its precisions were found."""
    pytest.importorskip("tensorrt_rtx", reason="no TensorRT-RTX to build engines with: pip install 'derain[rtx]'")
    from gpu_cases import prepare

    folder = tmp_path_factory.mktemp("cases") / "nano"
    return folder, prepare("random:daiam-nano", (192, 48), folder, count=1, fp8=True)


def test_a_captured_frame_keeps_what_its_graph_addresses(gpu, monkeypatch):
    """A CUDA graph holds no reference to what is in it: replayed without the engine it reads freed memory."""
    from gpu_engines import captured

    class Buffer:
        pass

    def make():
        held = Buffer()
        return captured(lambda: held), weakref.ref(held)

    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: SimpleNamespace(replay=lambda: None))
    monkeypatch.setattr(torch.cuda, "graph", lambda graph, capture_error_mode: nullcontext())
    replay, buffer = make()
    gc.collect()
    assert buffer() is not None
    replay()
    del replay
    gc.collect()
    assert buffer() is None


@pytest.mark.parametrize("both", [False, True])
def test_without_the_cuda_provider_the_command_is_one_that_pip_does_not_find_done(both, gpu, monkeypatch):
    import onnxruntime
    from gpu_engines import onnx_runtime

    def distribution(name):
        if not both:
            raise PackageNotFoundError(name)

    monkeypatch.setattr("derain.runtime.engines.onnxruntime.distribution", distribution)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: SimpleNamespace(cuda_stream=0))
    command = "pip uninstall -y onnxruntime && pip install --force" if both else r"pip install 'derain\[gpu\]'"
    with pytest.raises(RuntimeError, match=f"CUDAExecutionProvider here: {command}"):
        onnx_runtime(None, None, SimpleNamespace(is_cuda=True), None)


def test_a_case_holds_graphs_engines_and_an_output_that_only_a_right_engine_gives(case, gpu):
    _, made = case
    manifest = made.bundle.manifest
    assert {graph.precision for graph in manifest.graphs} == {"fp32", "fp16", "fp8"}
    assert {(engine.api, engine.precision) for engine in manifest.engines} == {(gpu.API, "fp16"), (gpu.API, "fp8")}
    for wrong in (np.zeros_like(made.expected), made.frames):
        assert gpu.psnr(wrong, made.expected) < 25


def test_every_row_is_written_at_once_failures_among_them_and_only_they_are_tried_again(case, gpu, tmp_path, capsys):
    folder, _ = case
    out = tmp_path / "gpu.json"
    command = ["measure", str(folder), "--device", "cpu", "--repeats", "2", "--out", str(out), "--only"]
    gpu.main([*command, f"pytorch-eager,onnxruntime,{gpu.API}-derain"])
    rows = {(row["engine"], row["precision"]): row for row in json.loads(out.read_text())["rows"]}
    assert list(rows) == [(f"{gpu.API}-derain", "fp16"), (f"{gpu.API}-derain", "fp8")] + [
        (engine, "fp16") for engine in ("onnxruntime", "pytorch-eager")
    ]
    for engine in ("onnxruntime", "pytorch-eager"):
        row = rows[engine, "fp16"]
        assert row["passed"] and row["psnr_vs_fp32"] >= 50
        assert row["ms"]["network"]["p50"] > 0 and row["ms"]["with copies"]["p99"] > 0
    if not torch.cuda.is_available():
        assert "no GPU that CUDA can use" in rows[f"{gpu.API}-derain", "fp8"]["error"]
        assert capsys.readouterr().out.endswith("2 measured, 2 failed\n")
        gpu.main([*command, f"onnxruntime,{gpu.API}-derain"])
        told = capsys.readouterr().out
        assert told.count("FAILED") == 2 and "onnxruntime " not in told
        assert len(json.loads(out.read_text())["rows"]) == 4
    out.write_text(out.read_text().replace('"device": "cpu"', '"device": "NVIDIA H100"'))
    with pytest.raises(SystemExit, match=r"was measured on NVIDIA H100, here is cpu: name another --out"):
        gpu.main([*command, "onnxruntime"])


def test_a_black_result_does_not_pass(case, gpu, monkeypatch):
    _, made = case
    black = gpu.ENGINES["onnxruntime"](made, gpu.Precision.FP16, torch.device("cpu"))
    monkeypatch.setitem(gpu.ENGINES, "black", lambda *_: black._replace(infer=np.zeros_like))
    row = gpu.measured(made, "black", gpu.Precision.FP16, torch.device("cpu"), repeats=1)
    assert not row["passed"] and row["psnr_vs_fp32"] < 20


def test_an_output_that_proves_nothing_is_refused_before_the_work_and_leaves_no_case(gpu, tmp_path):
    from gpu_cases import prepare

    with pytest.raises(ValueError, match=r"the frame as it came is 2\d\.\d dB .* bound of 30 dB proves nothing"):
        prepare("daiam-nano", (64, 48), tmp_path / "case", count=1, fp8=True)
    assert not any(tmp_path.iterdir())


def test_a_crash_and_a_hang_each_become_one_line(gpu):
    assert gpu.guarded(60, os.abort) == {"error": "its process ended with exit status -6"}
    began = time.monotonic()
    assert gpu.guarded(0.5, time.sleep, 600) == {"error": "not done after 0 s: give it more with --limit"}
    assert time.monotonic() - began < 60


def test_measuring_needs_neither_onnx_nor_lightning(repository):
    code = "import sys, gpu; print(sorted({'onnx', 'onnxruntime', 'onnxscript', 'lightning'} & sys.modules.keys()))"
    told = subprocess.run([sys.executable, "-c", code], cwd=repository / "benchmarks", capture_output=True, text=True)
    assert told.stdout == "[]\n", told.stderr


def test_an_unknown_engine_and_a_folder_that_is_no_case_are_refused_in_one_line(gpu, tmp_path, capsys):
    with pytest.raises(SystemExit):
        gpu.main(["measure", str(tmp_path), "--only", "warp"])
    assert "engine 'warp': expected some of tensorrt-rtx, " in capsys.readouterr().err
    with pytest.raises(SystemExit, match=r"error: .*: no case .*gpu\.py prepare"):
        gpu.main(["measure", str(tmp_path), "--device", "cpu"])
