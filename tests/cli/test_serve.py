"""`derain serve`: its page while it runs, in a process of its own, and how that ends."""

import json
import re
import signal
import urllib.error
import urllib.request

import pytest

SOURCE = "test://rain?live=1&frames=1000000&fps=60"


@pytest.fixture
def serving(started, inverting):
    """`derain serve` in a process of its own: the process and the address it showed."""

    def start(*options):
        process = started("serve", inverting.path, "--source", SOURCE, "--port", "0", *options)
        return process, re.fullmatch(r"live at (http://\S+)\n", process.stdout.readline())[1]

    return start


def status_of(url):
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as refusal:
        return refusal.code


def test_ctrl_c_ends_the_page_and_the_stream_with_the_usual_summary(serving, tmp_path):
    report = tmp_path / "report.json"
    process, address = serving("--sink", tmp_path / "out.mkv", "--json", report)
    assert address.startswith("http://127.0.0.1:")
    urllib.request.urlopen(f"{address}pair", timeout=10).close()
    with urllib.request.urlopen(f"{address}state", timeout=10) as answer:
        about = json.load(answer)["about"]
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert about["source"] == SOURCE
    presented = json.loads(report.read_text())["presented"]
    assert presented >= 1
    assert f"{presented} of " in output
    assert (tmp_path / "out.mkv").is_file()
    assert "Traceback" not in output


def test_for_others_a_token_is_made_shown_once_and_needed(serving):
    process, address = serving("--host", "0.0.0.0")
    token = address.partition("?token=")[2]
    port = re.search(r":(\d+)/", address)[1]
    assert len(token) >= 32
    assert status_of(f"http://127.0.0.1:{port}/state") == 401
    assert status_of(f"http://127.0.0.1:{port}/state?token={token}") == 200
    process.send_signal(signal.SIGTERM)
    assert token not in process.communicate(timeout=20)[0]


def test_a_token_that_was_given_is_needed_on_this_machine_too_and_not_shown(serving):
    process, address = serving("--token", "correct-horse")
    assert "token" not in address
    port = re.search(r":(\d+)/", address)[1]
    assert status_of(f"http://127.0.0.1:{port}/") == 401
    assert status_of(f"http://127.0.0.1:{port}/?token=correct-horse") == 200
    process.send_signal(signal.SIGINT)
    assert "correct-horse" not in process.communicate(timeout=20)[0]
