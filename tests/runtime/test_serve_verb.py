import json
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import contextmanager

CODE = "from derain.cli.main import main; main()"
SOURCE = "test://rain?live=1&frames=1000000&fps=60"


@contextmanager
def serving(bundle, *options):
    """`derain serve` in a process of its own: the process and the address it showed."""
    arguments = ["serve", bundle.path, "--source", SOURCE, "--port", "0", *options]
    command = [sys.executable, "-c", CODE, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            first = process.stdout.readline()
            yield process, re.fullmatch(r"live at (http://\S+)\n", first)[1]
        finally:
            process.kill()


def status_of(url):
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as refusal:
        return refusal.code


def test_ctrl_c_ends_the_page_and_the_stream_with_the_usual_summary(bundle, tmp_path):
    report = tmp_path / "report.json"
    with serving(bundle, "--sink", tmp_path / "out.mkv", "--json", report) as (process, address):
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


def test_for_others_a_token_is_made_shown_once_and_needed(bundle):
    with serving(bundle, "--host", "0.0.0.0") as (process, address):
        token = address.partition("?token=")[2]
        port = re.search(r":(\d+)/", address)[1]
        assert len(token) >= 32
        assert status_of(f"http://127.0.0.1:{port}/state") == 401
        assert status_of(f"http://127.0.0.1:{port}/state?token={token}") == 200
        process.send_signal(signal.SIGTERM)
        assert token not in process.communicate(timeout=20)[0]


def test_a_token_that_was_given_is_needed_on_this_machine_too_and_not_shown(bundle):
    with serving(bundle, "--token", "correct-horse") as (process, address):
        assert "token" not in address
        port = re.search(r":(\d+)/", address)[1]
        assert status_of(f"http://127.0.0.1:{port}/") == 401
        assert status_of(f"http://127.0.0.1:{port}/?token=correct-horse") == 200
        process.send_signal(signal.SIGINT)
        assert "correct-horse" not in process.communicate(timeout=20)[0]
