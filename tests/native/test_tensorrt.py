"""libderain built with TensorRT-RTX (runtime/native/prove_tensorrt.sh) on an engine that `derain build` made."""

from pathlib import Path

import pytest

from derain.export import build, exporter
from derain.runtime import cuda, engines
from derain.runtime.bundle import Bundle
from derain.runtime.manifest import Precision

SIZE = 320, 192


@pytest.fixture(scope="module")
def built(library, tmp_path_factory) -> Bundle:
    pytest.importorskip("tensorrt_rtx")
    bundle, _ = exporter.export("random:daiam-nano", tmp_path_factory.mktemp("built") / "bundle", SIZE)
    return build.build(bundle, Precision.FP32, api="tensorrt-rtx")[0]


@pytest.fixture
def open_built(native):
    """Opens a bundle; a skip where the library was built without the backend."""

    def open_bundle(path: Path, precision: str = "fp32"):
        try:
            return native(path, "tensorrt-rtx", precision)
        except RuntimeError as error:
            if "is unknown, this build has" in str(error):
                pytest.skip("this libderain has no TensorRT-RTX: see runtime/native/prove_tensorrt.sh")
            raise

    return open_bundle


@pytest.fixture
def gpu() -> str | None:
    try:
        return cuda.architecture()
    except OSError:
        return None


def test_without_a_gpu_it_says_so_in_one_line(built, open_built, gpu):
    if gpu:
        pytest.skip(f"there is a GPU here, {gpu}")
    with pytest.raises(
        RuntimeError, match=r"^no GPU that CUDA can use \(CUDA error \d+, .*\): install or update NVIDIA's driver"
    ):
        open_built(built.path)


@pytest.fixture
def built_with(built, tmp_path):
    """The bundle as if another version had built its engine."""

    def write(version: str) -> Bundle:
        engine = built.manifest.engines[0].model_copy(update={"api_version": version})
        return Bundle.write(
            tmp_path / version,
            built.manifest.model_copy(update={"engines": (engine,)}),
            {name: built.file(name) for name in built.manifest.files},
        )

    return write


@pytest.mark.parametrize("version", ["1.0.0.0", "1.0.0"])
def test_an_engine_of_another_version_is_refused_with_the_command_that_builds_one(version, built_with, open_built):
    expected = rf"built with tensorrt-rtx {version} for portable, this is tensorrt-rtx [\d.]+: run `derain build "
    with pytest.raises(RuntimeError, match=expected):
        open_built(built_with(version).path)


def test_a_version_without_its_last_part_as_jetpacks_python_tells_it_is_the_librarys(
    built, built_with, open_built, gpu
):
    bundle = built_with(built.manifest.engines[0].api_version.rpartition(".")[0])
    if gpu:
        open_built(bundle.path)
        return
    with pytest.raises(RuntimeError, match="no GPU that CUDA can use"):
        open_built(bundle.path)


def test_a_precision_nobody_built_is_refused(built, open_built):
    with pytest.raises(RuntimeError, match=r"no fp16 engine for tensorrt-rtx: run `derain build .*--precision fp16"):
        open_built(built.path, "fp16")


def test_on_a_gpu_it_gives_the_pixels_of_pythons_engine(built, open_built, gpu, picture, close_enough):
    if not gpu:
        pytest.skip("no GPU here")
    stream = open_built(built.path)
    with engines.create("tensorrt-rtx", built, Precision.FP32) as engine:
        for seed in range(3):
            frame = picture(seed, *SIZE)
            close_enough(stream.clean(frame), engine.infer(frame))
