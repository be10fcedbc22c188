"""A bench report as one HTML page that needs nothing else: plots are inline SVG, text follows the reader's colours."""

import math
from html import escape

import numpy as np

from derain.runtime.bench import BenchReport
from derain.runtime.latency import Percentiles
from derain.runtime.machine import Machine

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 720, 180, 64, 32, 24
BINS = 60

STYLE = """
:root { color-scheme: light dark; --plot: #3b78c4; --mark: #c25e00; --soft: #5d6673; --line: #d5d9df; }
@media (prefers-color-scheme: dark) { :root { --plot: #6ba4ea; --mark: #f09a4a; --soft: #98a2b0; --line: #39404a; } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.35rem; margin: 0 0 .5rem; } h2 { font-size: 1rem; margin: 1.6rem 0 .3rem; }
div { overflow-x: auto; } p { color: var(--soft); margin: 0 0 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
td, th { padding: .2rem 1.1rem .2rem 0; text-align: right; } th { color: var(--soft); font-weight: 500; }
td:first-child, th:first-child, .words td, .words th { text-align: left; }
tr + tr { border-top: 1px solid var(--line); }
svg { display: block; width: 100%; height: auto; overflow: visible; } .words td:first-child { white-space: nowrap; }
svg text { font-size: 12px; fill: var(--soft); }
.bar, .dot { fill: var(--plot); } .axis { stroke: var(--line); }
.mark { stroke: var(--mark); stroke-width: 1.2; } svg .label { fill: var(--mark); }
@media (max-width: 40rem) {
  svg text { font-size: 16px; } .dot { r: 3px; } table { font-size: 13px; }
  td, th { padding-right: .5rem; }
}
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
        f"<h2>{_words(stage)}</h2>{_histogram(samples, report.latency_ms[stage])}"
        for stage, samples in report.samples_ms.items()
        if samples
    )
    whole = report.samples_ms["capture_to_present"]
    timeline = f"<h2>capture to present over time</h2>{_timeline(report.at_s, whole)}" if whole else ""
    shown = (
        f"<p>Capture to present is of all {len(whole)} presented frames, inference also of results that came too late, "
        "wait and present of the derained ones.</p>"
    )
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"/><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head>\n<body><h1>{escape(title)}</h1>\n<p>{escape(counts)}</p>\n"
        "<div><table><tr><th>ms</th><th>p50</th><th>p90</th><th>p99</th><th>p99.9</th><th>max</th></tr>"
        f"{table}</table></div>\n{shown}\n{timeline}\n{histograms}\n"
        f"{machine_table(report.before, report.after)}</body></html>\n"
    )


def machine_table(before: Machine, after: Machine) -> str:
    """The machine's state around a measurement, under its heading."""
    later = dict(after)
    rows = "".join(
        f"<tr><td>{_words(key)}</td><td>{_told(value)}</td><td>{_told(later[key])}</td></tr>" for key, value in before
    )
    head = "<tr><th></th><th>before</th><th>after</th></tr>"
    return f'<h2>machine</h2><div><table class="words">{head}{rows}</table></div>'


def ticks(low: float, high: float) -> list[float]:
    """Five or more round values, 1, 2 or 5 times a power of ten apart, from at most `low` to at least `high`.

    Raises:
        ValueError: `high` is not above `low`.
    """
    if not high > low:
        raise ValueError(f"an axis from {low:g} to {high:g}: expected its end above its beginning")
    power = 10.0 ** math.floor(math.log10((high - low) / 4))
    step = next(step * power for step in (5, 2, 1) if step * power <= (high - low) / 4)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def _words(stage: str) -> str:
    return escape(stage.replace("_", " "))


def _told(value: object) -> str:
    if isinstance(value, dict):
        return escape(", ".join(f"{key} {told}" for key, told in value.items()))
    return "not told" if value is None else escape(str(value))


def _histogram(samples: list[float], percentiles: Percentiles) -> str:
    """Bars over milliseconds, what lies beyond the axis in the last; p50 and p99 are marked, as the table has them."""
    across = ticks(0, max(float(np.quantile(samples, 0.999)), 1e-3))
    counts, _ = np.histogram(np.minimum(samples, across[-1]), BINS, (0, across[-1]))
    up = ticks(0, float(counts.max()))
    step, plot = (WIDTH - LEFT) / BINS, HEIGHT - BOTTOM - TOP
    bars = "".join(
        f'<rect class="bar" x="{LEFT + index * step:.1f}" y="{TOP + plot * (1 - share):.1f}" '
        f'width="{step - 1:.1f}" height="{plot * share:.1f}"/>'
        for index, share in enumerate(counts / up[-1])
    )
    marks = ""
    for row, name, value in ((12, "p50", percentiles.p50), (28, "p99", percentiles.p99)):  # a row each: may be equal
        x = LEFT + (WIDTH - LEFT) * min(value / across[-1], 1)
        anchor = "end" if x > WIDTH / 2 else "start"
        marks += f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
        marks += f'<text class="label" x="{x:.1f}" y="{row}" text-anchor="{anchor}">{name} {value:.2f} ms</text>'
    return _svg(bars + marks, (across, "ms"), (up, "frames"))


def _timeline(at_s: list[float], samples: list[float]) -> str:
    """One dot a frame."""
    across, up = (ticks(0, max(*values, 1e-3)) for values in (at_s, samples))
    plot = HEIGHT - BOTTOM - TOP
    dots = "".join(
        f'<circle class="dot" r="2" cx="{LEFT + (WIDTH - LEFT) * at / across[-1]:.1f}" '
        f'cy="{TOP + plot * (1 - value / up[-1]):.1f}"/>'
        for at, value in zip(at_s, samples, strict=True)
    )
    return _svg(dots, (across, "s"), (up, "ms"))


def _svg(content: str, x: tuple[list[float], str], y: tuple[list[float], str]) -> str:
    """Content in axes with their ticks, each with what it counts; the ends of the plot are the first and last tick."""
    base = HEIGHT - BOTTOM
    marks = ""
    for tick in x[0]:
        at = LEFT + (WIDTH - LEFT) * (tick - x[0][0]) / (x[0][-1] - x[0][0])
        last = tick == x[0][-1]
        marks += f'<text x="{at:.1f}" y="{HEIGHT - 6}" text-anchor="{"end" if last else "middle"}">{tick:g}'
        marks += f" {x[1]}</text>" if last else "</text>"
    for tick in (y[0][0], y[0][-1]):  # as many as fit a low plot
        at = base - (base - TOP) * (tick - y[0][0]) / (y[0][-1] - y[0][0])
        marks += f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{tick:g}</text>'
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{content}'
        f'<path class="axis" fill="none" d="M{LEFT} {TOP}V{base}H{WIDTH}"/>{marks}'
        f'<text x="{LEFT - 6}" y="{TOP + 20}" text-anchor="end">{y[1]}</text></svg>'
    )
