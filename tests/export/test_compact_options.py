"""The compact family's options go through the unroller, the rewrites and ONNX like its defaults."""

import pytest
import torch

from derain.export.exporter import export, traced
from derain.export.unroll import unroll
from derain.export.verify import verify
from derain.training.models import build
from derain.training.models.weights import load

NANO_COMPARISON = [
    ("dam-nano", {"attention": "zero"}),
    ("dam-nano", {"attention": "odd"}),
    ("rescan-nano", {}),
    ("prenet-qian-nano", {"residual": True}),
]
"""What training/configs/comparison-nano.yaml compares besides the compact family and chains of it, which
test_unroll.py has; a chain of peers holds the other two."""

OPTIONS = [
    {"head": "plain"},
    {"context": "encoders"},
    {"head": "plain", "context": "encoders"},
    {"context": "global"},
    {"whiten": False},
]


@torch.inference_mode()
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_network_with_options_is_unrolled_to_its_own_numbers(options, lively, make_spec, camera_bytes):
    frame, clean = make_spec(width=64, height=48), make_spec("clean", width=64, height=48)
    repeated = {"encoder_steps": 2, "decoder_steps": 2}
    naive = traced(lively(build("daiam-nano", **repeated, **options)), frame, clean)
    graph, report = unroll(naive)
    picture = camera_bytes(frame)
    assert (graph(picture).int() - naive(picture).int()).abs().max() <= 1
    assert graph(picture).float().std() > 10
    _, default = unroll(traced(build("daiam-nano", **repeated).eval(), frame, clean))
    whitening = 48 * 48 * 16 * 12 if "whiten" in options else 0
    assert (report.macs < default.macs) if "head" in options else (report.macs == default.macs - whitening)


@pytest.mark.parametrize("options", [OPTIONS[2] | {"whiten": False}, {"context": "global"}], ids=str)
def test_weights_with_options_are_exported_as_they_are(options, lively_weights, tmp_path):
    weights = lively_weights("daiam-nano", **options)
    assert load(str(weights)).options == options
    bundle, _ = export(str(weights), tmp_path / "b", (64, 48))
    assert bundle.manifest.model.config == {"options": options}
    (result,) = verify(bundle)
    assert result.passed


@pytest.mark.parametrize(("name", "options"), NANO_COMPARISON, ids=str)
def test_the_comparisons_compact_networks_are_exported_as_they_are(name, options, lively_weights, tmp_path):
    bundle, _ = export(str(lively_weights(name, **options)), tmp_path / "b", (64, 48))
    (result,) = verify(bundle)
    assert result.passed
