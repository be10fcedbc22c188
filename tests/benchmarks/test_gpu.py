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

from derain_tests.pictures import write_frames


@pytest.fixture(scope="module")
def gpu(repository):
    """benchmarks/gpu.py, imported as its own scripts import it."""
    sys.path.insert(0, str(repository / "benchmarks"))
    import gpu

    yield gpu
    sys.path.remove(str(repository / "benchmarks"))


@pytest.fixture(scope="module")
def case(gpu, tmp_path_factory):
    """A case wider than the tiles on which its precisions were found."""
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
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: "the stream of the runs before")
    streams = []
    monkeypatch.setattr(
        torch.cuda, "graph", lambda graph, stream, capture_error_mode: streams.append(stream) or nullcontext()
    )
    replay, buffer = make()
    assert streams == ["the stream of the runs before"]
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


def test_in_8_bits_the_frame_as_it_came_does_not_pass_however_near_it_is(case, gpu):
    _, made = case
    near = made._replace(expected=np.clip(made.frames.astype(int) + 6, 0, 255).astype(np.uint8))
    assert gpu.psnr(near.frames, near.expected) > gpu.MIN_PSNR[gpu.Precision.FP8]
    assert not gpu.judged(near, near.frames, gpu.Precision.FP8)["passed"]
    assert gpu.judged(near, near.expected - (near.expected > 9), gpu.Precision.FP8)["passed"]


def test_an_output_that_proves_nothing_is_refused_before_the_work_and_leaves_no_case(gpu, tmp_path):
    from gpu_cases import prepare

    flat = write_frames(tmp_path / "flat", [np.full((48, 64, 3), 90, np.uint8)])
    with pytest.raises(ValueError, match=r"a picture of one grey is .* dB .* bound of 50 dB proves nothing"):
        prepare("daiam-nano", (64, 48), tmp_path / "case", frames=f"frames://{flat}", count=1)
    assert [path.name for path in tmp_path.iterdir()] == ["flat"]


def test_precisions_are_found_on_tiles_from_edge_to_edge(gpu):
    from gpu_cases import tiles

    image = np.arange(40 * 60 * 3).astype(np.uint8).reshape(40, 60, 3)
    parts = tiles(image, (20, 10))
    assert [part.shape for part in parts] == 9 * [(10, 20, 3)]
    for part, corner in ((parts[0], image[:10, :20]), (parts[4], image[15:25, 20:40]), (parts[8], image[-10:, -20:])):
        np.testing.assert_array_equal(part, corner)


def test_a_case_is_called_as_its_weights_or_as_their_run(gpu):
    from gpu_cases import _called

    told = {
        name: _called(name) for name in ("daiam-edge", "random:daiam", "runs/a/weights.safetensors", "w/x.safetensors")
    }
    assert list(told.values()) == ["daiam-edge", "daiam", "a", "x"]


def test_a_case_that_was_prepared_again_is_measured_again(case, gpu, tmp_path, capsys, monkeypatch):
    folder, made = case
    out = tmp_path / "gpu.json"
    command = ["measure", str(folder), "--device", "cpu", "--repeats", "1", "--out", str(out), "--only", "onnxruntime"]
    for graph in ("first", "first", "second"):
        held = made.bundle.manifest.files
        changed = {name: entry.model_copy(update={"sha256": f"{graph} {name}"}) for name, entry in held.items()}
        manifest = made.bundle.manifest.model_copy(update={"files": changed})
        bundle = SimpleNamespace(manifest=manifest)
        monkeypatch.setattr(gpu, "read_case", lambda folder, bundle=bundle: made._replace(bundle=bundle))
        monkeypatch.setattr(gpu, "guarded", lambda *_: {"psnr_vs_fp32": None, "passed": True, "ms": {}})
        gpu.main(command)
    assert capsys.readouterr().out.count("equal; ms") == 2
    rows = json.loads(out.read_text())["rows"]
    assert [(row["case"], row["graph"]) for row in rows] == [("nano", "second graph.fp16.onnx")]


def test_cases_in_turn_are_compared_within_their_network_and_kept_beside_what_was_measured(
    gpu, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "gpu.json"
    sizes = {"edge-none": ("edge", 64), "edge-all": ("edge", 64), "nano-none": ("nano", 64), "wide": ("edge", 128)}

    def read(folder):
        name, width = sizes[folder.name]
        manifest = SimpleNamespace(model=SimpleNamespace(name=name), input=SimpleNamespace(width=width, height=48))
        return SimpleNamespace(bundle=SimpleNamespace(manifest=manifest))

    def answer(limit, function, folders, repeats):
        if folders[0].name == "nano-none":
            return {"error": "its process ended with exit status 1"}
        return [{"case": f.name, "psnr_vs_fp32": 60.0, "passed": True, "ms_p50": 1.0, "ratio": 1.0} for f in folders]

    monkeypatch.setattr(gpu, "read_case", read)
    monkeypatch.setattr(gpu, "guarded", answer)
    monkeypatch.setattr(gpu, "device_name", lambda device: "a GPU")
    gpu._write(out, "cuda", rows=[{"case": "x"}])
    with pytest.raises(OSError, match="nano 64x48: its process ended with exit status 1"):
        gpu.interleave([tmp_path / name for name in sizes], out, 5, 60)
    written = json.loads(out.read_text())
    assert written["rows"] == [{"case": "x"}]
    assert [row["case"] for row in written["interleaved"]] == ["edge-none", "edge-all", "wide"]
    assert "1.000 of edge-none" in capsys.readouterr().out
    assert written["machine"]["cores"] > 0 and written["packages"]["torch"] == torch.__version__


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
