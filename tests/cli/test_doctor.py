"""`derain doctor`: what is here, and what would bring the rest."""

import pytest


def test_doctor_finds_what_the_tests_run_on(derain):
    answer = derain("doctor")
    assert answer.status == 0 and answer.err == ""
    for part in ("Python", "numpy", "torch", "onnxruntime", "ready"):
        assert part in answer.out


def test_doctor_says_that_engines_are_built_but_not_run_where_no_gpu_is(derain, monkeypatch):
    pytest.importorskip("tensorrt_rtx", reason="needs TensorRT-RTX: pip install 'derain[rtx]'")
    from derain.runtime import cuda

    if (reason := cuda.missing() or cuda.refusal()) is None:
        pytest.skip("there is a GPU here, which runs them")
    monkeypatch.setenv("COLUMNS", "500")
    (line,) = [line for line in derain("doctor").out.splitlines() if "engine tensorrt-rtx" in line]
    assert "builds engines; no GPU to run them" in line and reason in line and "ready" not in line


def test_what_is_missing_is_in_doctors_last_column(fresh_derain, monkeypatch):
    monkeypatch.setenv("COLUMNS", "500")
    missing = ("lightning", "onnxruntime")
    answer = fresh_derain("doctor", missing=missing)
    told = " ".join(answer.out.split())
    assert answer.status == 0
    for part in ("'derain[train]'", "missing: lightning", "'derain[export]'", "'derain[cpu]'"):
        assert part.replace(" ", "") in told.replace(" ", ""), answer.out
    assert fresh_derain("doctor", "--strict", missing=missing).status == 1
