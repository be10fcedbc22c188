"""A comparison as one HTML page that needs nothing else: a sentence and a line a row, speed against quality, spread."""

from html import escape

from derain.runtime.bench_page import STYLE, machine_table, ticks
from derain.runtime.engine_comparison import EngineComparison, EngineResult

WIDTH, LEFT, RIGHT = 720, 190, 90
BAR, PLOT = 34, 300
COLORS = {"fp32": "#3b82c4", "fp16": "#2f9e6e", "int8": "#d9532c", "fp8": "#9a6bc4"}

OWN_STYLE = """
body { max-width: 52rem; } td.words, th.words { text-align: left; white-space: normal; }
td { white-space: nowrap; font-variant-numeric: tabular-nums; } .grid { stroke: currentColor; opacity: .15; }
.quiet { opacity: .7; } table.wide { width: 100%; }
table.wide td, table.wide th { border-bottom: 1px solid color-mix(in srgb, currentColor 15%, transparent); }
.swatch { display: inline-block; width: .7em; height: .7em; border-radius: 50%; margin-right: .4em; }
"""


def engine_comparison_page(comparison: EngineComparison) -> str:
    """The page."""
    title = f"{comparison.model}, {comparison.width}x{comparison.height} {comparison.pixels}: precisions and engines"
    raw = "" if comparison.psnr_input is None else f" The raw frames stand at {comparison.psnr_input:.2f} dB."
    how = (
        f"{comparison.frames} frames; the engines took them in turn, {comparison.rounds} inferences each on "
        f"{comparison.before.cpu} ({comparison.before.gpu or 'no GPU'}).{raw}"
    )
    verdicts = "".join(
        f"<li>{_swatch(row)}<b>{escape(_name(row))}</b>: {escape(row.verdict)}</li>" for row in comparison.rows
    )
    table = "".join(
        f"<tr><td>{_swatch(row)}{escape(_name(row))}</td><td>{_db(row.psnr_vs_truth)}</td><td>{_db(row.psnr_vs_fp32)}"
        f"</td><td>{row.inference_ms.p50:.2f}</td><td>{row.inference_ms.p90:.2f}</td>"
        f"<td>{row.inference_ms.p99:.2f}</td><td>{row.megabytes:.2f}</td></tr>"
        for row in comparison.rows
    )
    left_out = "".join(
        f"<tr><td>{escape(name)}</td><td class='words'>{escape(why)}</td></tr>"
        for name, why in comparison.left_out.items()
    )
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{STYLE}{OWN_STYLE}</style></head>\n<body><h1>{escape(title)}</h1>\n<p>{escape(how)}</p>\n"
        f"<ul>{verdicts}</ul>\n"
        '<table class="wide"><tr><th></th><th>dB to truth</th><th>dB to FP32</th><th>p50 ms</th><th>p90 ms</th>'
        f"<th>p99 ms</th><th>MB</th></tr>{table}</table>\n"
        f"<h2>time of an inference</h2>\n{_spread(comparison.rows)}\n{_quality(comparison.rows)}\n"
        + (f'<h2>left out</h2><table class="quiet">{left_out}</table>\n' if left_out else "")
        + f"{machine_table(comparison.before, comparison.after)}</body></html>\n"
    )


def _name(row: EngineResult) -> str:
    return f"{row.engine} {row.precision}"


def _swatch(row: EngineResult) -> str:
    return f'<span class="swatch" style="background:{COLORS[row.precision]}"></span>'


def _db(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _spread(rows: list[EngineResult]) -> str:
    """A bar to p50 and a line on to p99 for each row."""
    longest = max(row.inference_ms.p99 for row in rows)
    scale = (WIDTH - LEFT - RIGHT) / longest
    lines = ""
    for index, row in enumerate(rows):
        y = BAR * index + BAR / 2
        ms = row.inference_ms
        p50, p90, p99 = (LEFT + scale * value for value in (ms.p50, ms.p90, ms.p99))
        color = COLORS[row.precision]
        lines += (
            f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{escape(_name(row))}</text>'
            f'<rect x="{LEFT}" y="{y - 8:.1f}" width="{p50 - LEFT:.1f}" height="16" fill="{color}"/>'
            f'<rect x="{p50:.1f}" y="{y - 8:.1f}" width="{p90 - p50:.1f}" height="16" fill="{color}" opacity=".35"/>'
            f'<path d="M{p90:.1f} {y:.1f}H{p99:.1f}m0 -5v10" stroke="{color}" stroke-width="1.5" fill="none"/>'
            f'<text x="{p99 + 6:.1f}" y="{y + 4:.1f}">{row.inference_ms.p50:.2f} ms</text>'
        )
    foot = BAR * len(rows) + 14
    return (
        f'<svg viewBox="0 0 {WIDTH} {foot + 6}" role="img">{lines}'
        f'<text class="quiet" x="{LEFT}" y="{foot}">bar to p50, pale to p90, line to p99</text></svg>'
    )


def _quality(rows: list[EngineResult]) -> str:
    """A dot a row: p50 across, dB up; against the truth where it is known, else against FP32."""
    known = "truth" if all(row.psnr_vs_truth is not None for row in rows) else "FP32"
    values = [row.psnr_vs_truth if known == "truth" else row.psnr_vs_fp32 for row in rows]
    seen = [(row, value) for row, value in zip(rows, values, strict=True) if value is not None]
    if len(seen) < 2:
        return ""
    left, base = 54, PLOT - 34
    low, high = min(v for _, v in seen), max(v for _, v in seen)
    margin = max(0.15 * (high - low), 0.05)
    up = ticks(low - margin, high + margin)
    across = ticks(0, 1.15 * max(row.inference_ms.p50 for row, _ in seen))
    low, high, longest = up[0], up[-1], across[-1]
    dots = ""
    for tick in up:
        y = base - (base - 10) * (tick - low) / (high - low)
        dots += f'<path class="grid" d="M{left} {y:.1f}H{WIDTH}"/>'
        dots += f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>'
    for tick in across:
        x = left + (WIDTH - left - 10) * tick / longest
        anchor = "end" if tick == longest else "middle"
        dots += f'<text x="{x:.1f}" y="{base + 16}" text-anchor="{anchor}">{tick:,g}</text>'
    for index, (row, value) in enumerate(sorted(seen, key=lambda pair: pair[0].inference_ms.p50)):
        x = left + (WIDTH - left - 10) * row.inference_ms.p50 / longest
        y = base - (base - 10) * (value - low) / (high - low)
        beside = 20 if index % 2 else -11  # neighbours' labels in turn below and above
        dots += (
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{COLORS[row.precision]}"/>'
            f'<text x="{x:.1f}" y="{y + beside:.1f}" text-anchor="middle">{escape(_name(row))}</text>'
        )
    return (
        f"<h2>speed against quality</h2>\n<p>Up is nearer to {known} in dB, left is faster (p50, ms).</p>"
        f'<svg viewBox="0 0 {WIDTH} {PLOT}" role="img">{dots}'
        f'<path class="axis" fill="none" d="M{left} 10V{base}H{WIDTH}"/></svg>'
    )
