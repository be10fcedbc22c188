"""The GStreamer element, by `gst-launch-1.0` and `gst-inspect-1.0`, against Python's engine on the same frames."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from derain.export import exporter
from derain.runtime import engines
from derain.runtime.pixels import ColorMatrix, PixelFormat

BUILT = Path("build/native/default/runtime/native/gst")
SIZE = 64, 48
FRAMES = 6
FORMATS = {PixelFormat.BGR8: "BGR", PixelFormat.NV12: "NV12"}


@pytest.fixture(scope="session")
def gst(repository, tmp_path_factory):
    folder = Path(os.environ.get("DERAIN_GST") or repository / BUILT)
    if not (folder / "libgstderain.so").is_file():
        pytest.skip(f"no GStreamer element in {folder}: `make native` builds it where GStreamer's headers are")
    if shutil.which("gst-launch-1.0") is None:
        pytest.skip("no gst-launch-1.0: apt-get install gstreamer1.0-tools")
    registry = tmp_path_factory.mktemp("gst") / "registry.bin"
    environment = os.environ | {"GST_PLUGIN_PATH": str(folder), "GST_REGISTRY": str(registry)}

    def run(program, *arguments):
        command = [f"gst-{program}-1.0", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)

    return run


@pytest.fixture(scope="session", params=list(FORMATS))
def bundle(request, tmp_path_factory):
    return exporter.export("random:daiam-nano", tmp_path_factory.mktemp("gst") / "bundle", SIZE, request.param)[0]


@pytest.fixture
def launch(gst, bundle, tmp_path):
    """Runs smooth test frames through `elements` into a file; what is in it, one frame an entry."""
    spec = bundle.manifest.input
    width, height = SIZE
    caps = f"video/x-raw,format={FORMATS[spec.pixels]},width={width},height={height},framerate=30/1"
    source = f"videotestsrc num-buffers={FRAMES} pattern=ball ! {caps}"

    def run(*elements):
        path = tmp_path / "frames.raw"
        done = gst("launch", "-q", *" ! ".join([source, *elements, f"filesink location={path}"]).split())
        assert done.returncode == 0, done.stderr
        return np.fromfile(path, np.uint8).reshape(-1, *spec.image_shape)

    return run


def test_the_element_derains_as_pythons_engine_does(launch, bundle, close_enough):
    raw = launch()
    clean = launch(f"derain bundle={bundle.path}")
    assert len(raw) == len(clean) == FRAMES
    with engines.create("onnxruntime", bundle) as engine:
        expected = np.array([engine.infer(image) for image in raw])
    assert np.mean(expected != raw) > 0.1
    close_enough(clean, expected)


def test_what_misses_its_deadline_goes_on_as_it_came(launch, bundle):
    np.testing.assert_array_equal(launch(f"derain bundle={bundle.path} deadline=0.001"), launch())


def test_frames_of_another_size_are_converted_by_the_elements_before_it(gst, bundle):
    pipeline = f"videotestsrc num-buffers=3 ! videoconvert ! videoscale ! derain bundle={bundle.path} ! fakesink"
    done = gst("launch", "-q", *pipeline.split())
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def bt709_bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gst") / "bundle"
    return exporter.export("random:daiam-nano", folder, SIZE, PixelFormat.NV12, ColorMatrix.BT709)[0]


def test_frames_of_another_colorimetry_are_converted_by_the_element_before_it_or_refused(
    gst, bt709_bundle, tmp_path, close_enough
):
    width, height = SIZE
    camera = (
        f"videotestsrc num-buffers=1 pattern=smpte ! "
        f"video/x-raw,format=NV12,width={width},height={height},colorimetry=bt601"
    )

    def launch(*elements):
        return gst("launch", "-q", *" ! ".join([camera, *elements]).split())

    def frame(*elements):
        path = tmp_path / "frame.raw"
        done = launch(*elements, f"filesink location={path}")
        assert done.returncode == 0, done.stderr
        return np.fromfile(path, np.uint8).reshape(bt709_bundle.manifest.input.image_shape)

    derain = f"derain bundle={bt709_bundle.path}"
    refused = launch(derain, "fakesink")
    assert refused.returncode != 0
    assert "can't handle caps" in refused.stderr
    converted = frame("videoconvert", "video/x-raw,format=NV12,colorimetry=bt709")
    assert np.any(converted != frame())
    with engines.create("onnxruntime", bt709_bundle) as engine:
        expected = engine.infer(converted)
    close_enough(frame("videoconvert", derain, "video/x-raw,colorimetry=bt709"), expected)


def test_frames_that_are_too_late_already_are_dropped_by_qos(gst, bundle):
    pipeline = (
        f"videotestsrc num-buffers=60 ! video/x-raw,framerate=60/1 ! derain bundle={bundle.path} ! "
        f"identity sleep-time=60000 ! fakesink sync=true qos=true max-lateness=1"
    )
    done = gst("launch", "-m", *pipeline.split())
    assert done.returncode == 0, done.stderr
    messages = [line for line in done.stdout.splitlines() if "GstMessageQOS" in line and "derain" in line]
    assert messages, done.stdout[-2000:]


@pytest.mark.parametrize(
    ("properties", "part"),
    [
        ("bundle=/nowhere", "/nowhere: no such bundle"),
        ("bundle={bundle} engine=abacus", "abacus"),
        ("bundle={bundle} precision=int8", "no int8 graph"),
    ],
)
def test_what_cannot_be_opened_stops_the_pipeline_with_its_mend(properties, part, gst, bundle):
    element = properties.format(bundle=bundle.path)
    done = gst("launch", "-q", *f"videotestsrc num-buffers=1 ! derain {element} ! fakesink".split())
    assert done.returncode != 0
    assert part in done.stderr


def test_a_bundle_behind_links_in_a_circle_is_refused_and_the_host_lives(gst, tmp_path):
    circle = tmp_path / "circle"
    circle.symlink_to(circle)
    done = gst("launch", "-q", *f"videotestsrc num-buffers=1 ! derain bundle={circle} ! fakesink".split())
    assert done.returncode > 0, done.stderr  # a signal would be below
    assert f"{circle}/manifest.json: cannot be read (" in done.stderr


def test_the_element_describes_itself(gst):
    done = gst("inspect", "derain")
    assert done.returncode == 0, done.stderr
    for part in ("Rain removal", "bundle", "engine", "precision", "deadline", "BGR", "NV12", "qos"):
        assert part in done.stdout
