"""derain-stream against `derain`: every flag, default, source and sink of the one is the other's, or listed here."""

import re

import pytest
import typer

from derain.cli.main import app
from derain.runtime.sinks import open_sink
from derain.runtime.sources import open_source

PYTHON_ALONE = {
    "run": {
        "--telemetry": "a line of JSON a second is the desk's; a vehicle takes its figures from the C interface",
        "--metrics": "the same for Prometheus",
        "--record": "the recorder around faults writes video from Python",
        "--record-to": "the recorder around faults writes video from Python",
    },
    "bench": {
        "--all": "the other precisions and engines are Python's",
        "--truth": "belongs to --all",
        "--html": "`derain bench --compare` reads the native report too; the page is drawn by Python",
        "--compare": "compares reports of both runtimes, so it is there once",
    },
}
SINKS_OF_PYTHON_ALONE = {
    "display": "a window needs a desktop",
    "mjpeg": "a page for a browser is the desk's",
}
DEFAULT_OF_ITS_OWN = {"--engine"}
OPTION = re.compile(r"^  (?:-\w,)?(--[\w-]+)(?: (?:\S+ )*?\S*?=(\S+))?", re.MULTILINE)


@pytest.fixture(params=list(PYTHON_ALONE))
def verb(request):
    return request.param


@pytest.fixture
def of_python(verb):
    """Flags and their defaults, None where there is none."""
    parameters = typer.main.get_command(app).commands[verb].params
    return {flag: one.default for one in parameters for flag in one.opts if flag.startswith("--") and flag != "--help"}


@pytest.fixture
def of_native(stream, verb):
    shown = stream(verb, "--help").stdout
    return {flag: default or None for flag, default in OPTION.findall(shown) if flag != "--help"}


def test_each_flag_is_in_both_or_listed_with_its_reason(verb, of_python, of_native):
    assert {"--source", "--engine", "--precision", "--deadline", "--json"} <= of_native.keys()
    assert of_python.keys() - of_native.keys() == PYTHON_ALONE[verb].keys()
    assert of_native.keys() <= of_python.keys()


def test_flags_of_both_have_the_same_default(of_python, of_native):
    for flag, default in of_native.items():
        if flag not in DEFAULT_OF_ITS_OWN:
            expected = of_python[flag]
            assert default == (f"{expected:g}" if isinstance(expected, float) else expected), flag


def test_each_source_and_sink_is_in_both_or_listed_with_its_reason(stream, bundle):
    ends = {"--source": "test://rain", "--sink": "null://"}
    for end, opened in (("--source", open_source), ("--sink", open_sink)):
        with pytest.raises(ValueError, match="known are") as caught:
            opened("nothing://", bundle.manifest.input)
        arguments = [part for pair in (ends | {end: "nothing://"}).items() for part in pair]
        of_python, of_native = known(str(caught.value)), known(stream("run", bundle.path, *arguments).stderr.strip())
        assert len(of_native) >= 4
        assert of_python - of_native == (SINKS_OF_PYTHON_ALONE.keys() if end == "--sink" else set())
        assert of_native <= of_python


def known(message):
    return set(message.partition("known are: ")[2].split(", "))
