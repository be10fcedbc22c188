"""A bench report as one HTML page that needs nothing else: plots are inline SVG, text follows the reader's colours."""

from html import escape

import numpy as np

from derain.runtime.bench import BenchReport

WIDTH, HEIGHT, LEFT, BOTTOM = 720, 170, 54, 24
BINS = 60

STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; } td, th { padding: .15rem .8rem .15rem 0; text-align: right; }
td:first-child, th:first-child { text-align: left; }
svg { width: 100%; height: auto; } svg text { font-size: 11px; fill: currentColor; }
.bar { fill: #3b82c4; } .dot { fill: #3b82c4; } .axis { stroke: currentColor; stroke-width: .6; opacity: .5; }
.mark { stroke: #d9532c; stroke-width: 1.2; } .label { fill: #d9532c; }
"""


def page(report: BenchReport) -> str:
    """The page."""
    title = f"{report.model}, {report.width}x{report.height} {report.pixels}, {report.engine} {report.precision}"
    counts = (
        f"{report.camera_fps:g} camera frames a second for {report.seconds:g} s after {report.warm_up_s:g} s of "
        f"warm-up: {report.frames} frames, {report.presented} presented, {report.dropped} dropped, "
        f"{report.passed_through} passed through, {report.deadline_misses} deadline misses."
    )
    rows = dict(report.latency_ms)
    if report.jitter_ms is not None:
        rows["jitter"] = report.jitter_ms
    table = "".join(
        f"<tr><td>{_words(stage)}</td>{''.join(f'<td>{value:.2f}</td>' for _, value in percentiles)}</tr>"
        for stage, percentiles in rows.items()
    )
    histograms = "".join(
        f"<h2>{_words(stage)}</h2>{_histogram(samples)}" for stage, samples in report.samples_ms.items() if samples
    )
    whole = report.samples_ms["capture_to_present"]
    timeline = f"<h2>capture to present over time</h2>{_timeline(report.at_s, whole)}" if whole else ""
    after = dict(report.after)
    machines = "".join(
        f"<tr><td>{escape(key)}</td><td>{escape(str(value))}</td><td>{escape(str(after[key]))}</td></tr>"
        for key, value in report.before
    )
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head>\n<body><h1>{escape(title)}</h1>\n<p>{escape(counts)}</p>\n"
        "<table><tr><th>ms</th><th>p50</th><th>p90</th><th>p99</th><th>p99.9</th><th>max</th></tr>"
        f"{table}</table>\n{timeline}\n{histograms}\n"
        f"<h2>machine</h2><table><tr><th></th><th>before</th><th>after</th></tr>{machines}</table></body></html>\n"
    )


def _words(stage: str) -> str:
    return escape(stage.replace("_", " "))


def _histogram(samples: list[float]) -> str:
    """Bars over milliseconds, the last bar holding the highest thousandth; p50 and p99 are marked."""
    low, high = 0.0, max(float(np.quantile(samples, 0.999)), 1e-3)
    counts, _ = np.histogram(np.minimum(samples, high), BINS, (low, high))
    step, plot = (WIDTH - LEFT) / BINS, HEIGHT - BOTTOM - 14
    bars = "".join(
        f'<rect class="bar" x="{LEFT + index * step:.1f}" y="{14 + plot * (1 - share):.1f}" '
        f'width="{step - 1:.1f}" height="{plot * share:.1f}"/>'
        for index, share in enumerate(counts / counts.max())
    )
    marks = ""
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        value = float(np.quantile(samples, share))
        x = LEFT + (WIDTH - LEFT) * min(value / high, 1)
        anchor = "end" if x > WIDTH / 2 else "start"
        marks += f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="14" y2="{HEIGHT - BOTTOM}"/>'
        marks += f'<text class="label" x="{x:.1f}" y="10" text-anchor="{anchor}">{name} {value:.2f} ms</text>'
    return _svg(bars + marks, (low, high, "ms"), (0, float(counts.max()), "frames"))


def _timeline(at_s: list[float], samples: list[float]) -> str:
    """One dot a frame."""
    last, high = max(at_s[-1], 1e-3), max(*samples, 1e-3)
    plot = HEIGHT - BOTTOM - 14
    dots = "".join(
        f'<circle class="dot" r="1.4" cx="{LEFT + (WIDTH - LEFT) * at / last:.1f}" '
        f'cy="{14 + plot * (1 - value / high):.1f}"/>'
        for at, value in zip(at_s, samples, strict=True)
    )
    return _svg(dots, (0, last, "s"), (0, high, "ms"))


def _svg(content: str, x: tuple[float, float, str], y: tuple[float, float, str]) -> str:
    """Content in axes labelled at their ends."""
    base = HEIGHT - BOTTOM
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{content}'
        f'<path class="axis" fill="none" d="M{LEFT} 14V{base}H{WIDTH}"/>'
        f'<text x="{LEFT}" y="{HEIGHT - 8}">{x[0]:g}</text>'
        f'<text x="{WIDTH}" y="{HEIGHT - 8}" text-anchor="end">{x[1]:.4g} {x[2]}</text>'
        f'<text x="{LEFT - 6}" y="{base}" text-anchor="end">{y[0]:g}</text>'
        f'<text x="{LEFT - 6}" y="24" text-anchor="end">{y[1]:.4g}</text>'
        f'<text x="{LEFT - 6}" y="36" text-anchor="end">{y[2]}</text></svg>'
    )
