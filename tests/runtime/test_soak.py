"""A long run in short."""

import importlib.util


def test_a_short_soak_loses_no_frame_and_grows_no_handles_and_no_threads(repository):
    spec = importlib.util.spec_from_file_location("soak", repository / "benchmarks" / "soak.py")
    soak = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(soak)
    figures = soak.soak(frames=6000)
    assert figures["frames"] == figures["presented"] == 6000
    assert (figures["dropped"], figures["passed_through"]) == (0, 0)
    assert (figures["handles_grew"], figures["threads_grew"]) == (0, 0)
    # 3 MB over the test's second half would be 100 MB here; the full run of 200,000 frames is held to 1 MB.
    assert figures["rss_mb_per_100k_frames"] < 100
