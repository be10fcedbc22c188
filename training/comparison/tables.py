"""The tables, in Markdown, beside the paper's own figures; a cell that nothing has measured yet is "—"."""

from collections.abc import Mapping
from typing import Any, NamedTuple

MISSING = "—"


class Published(NamedTuple):
    """What the paper reports on its JRSRD, on its GPU: dB, SSIM, and in Table 6 parameters, seconds and "FLOPs"."""

    psnr: float
    ssim: float
    parameters: str = ""
    milliseconds: int | None = None
    gmac: int | None = None


PAPER = {
    "rescan": Published(21.05, 0.768, "0.15 M", 70, 246),
    "prenet": Published(23.29, 0.789, "0.17 M", 100, 337),
    "qian": Published(22.49, 0.772, "6.00 M", 130, 683),
    "qian-prenet": Published(23.89, 0.796, "6.17 M", 230, 1020),
    "prenet-qian": Published(23.68, 0.793, "6.17 M", 230, 1020),
    "dam-zero": Published(21.97, 0.729),
    "dam-odd": Published(23.41, 0.791),
    "dam-dual": Published(24.15, 0.806),
    "daiam": Published(24.67, 0.819, "3.60 M", 130, 890),
    "daiam-daiam": Published(24.84, 0.823),
    "d-daiam": Published(25.26, 0.825, "7.20 M", 280, 1780),
    "d-daiam-3": Published(25.68, 0.833),
}

LABELS = {
    "rescan": "RESCAN",
    "prenet": "PReNet",
    "qian": "Qian et al.",
    "qian-prenet": "Qian et al. → PReNet",
    "prenet-qian": "PReNet → Qian et al.",
    "dam-zero": "DAM(zero)",
    "dam-odd": "DAM(odd)",
    "dam-dual": "DAM(dual)",
    "daiam": "DAiAM",
    "daiam-daiam": "DAiAM-DAiAM",
    "d-daiam": "D-DAiAM",
    "d-daiam-3": "D-DAiAM(3)",
}

TABLE_6 = ("rescan", "prenet", "qian", "qian-prenet", "prenet-qian", "daiam", "d-daiam")
TABLE_7 = ("dam-zero", "dam-odd", "dam-dual", "daiam", "daiam-daiam", "d-daiam", "d-daiam-3")
INTENSITIES = ("prenet", "qian-prenet", "daiam", "d-daiam", "d-daiam-3", "daiam-edge-distilled", "daiam-nano-distilled")
COMPACT = ("daiam-nano", "daiam-small", "daiam-edge")
STEPS = ("daiam", "daiam-edge")

Results = dict[str, dict[str, Any]]
"""By system: evaluations, as `evaluate_system` writes them, or costs with parameters, macs, macs_naive and ms."""

Systems = Mapping[str, str]
"""The network of each of the protocol's systems, by its name in the registry."""


def tables(evaluations: Results, costs: Results, systems: Systems) -> str:
    """All tables with their headings, Markdown, of the protocol's `systems`; no table where it has none of the rows."""
    parts = [
        ("The paper's systems (its Table 6)", table_6(evaluations, costs, systems)),
        ("Ablation (its Table 7)", table_7(evaluations, systems)),
        ("By intensity of rain (its section 4.6), PSNR in dB", by_intensity(evaluations, systems)),
        ("The compact family, without and with a teacher", compact(evaluations, costs, systems)),
        ("Recurrent steps", recurrent(evaluations, costs, systems)),
    ]
    return "\n\n".join(f"### {heading}\n\n{table}" for heading, table in parts if table) + "\n"


def table_6(evaluations: Results, costs: Results, systems: Systems) -> str:
    """Quality and cost of the systems that the paper compares."""
    ours = ["system", "PSNR", "SSIM", "parameters", "GMAC", "ms", "patches seen"]
    header = [*ours, *(f"paper's {column}" for column in ours[1:-1])]
    rows = []
    for name in _present(TABLE_6, systems):
        measured = [*_quality(evaluations, name), *_cost(costs, name), _trained(evaluations, name)]
        rows.append([label(name, systems), *measured, *_published(name), *_published_cost(name)])
    return _markdown(header, rows)


def table_7(evaluations: Results, systems: Systems) -> str:
    """What each part of the network adds."""
    header = ["network", "PSNR", "SSIM", "paper's PSNR", "paper's SSIM", "patches seen"]
    rows = [
        [label(name, systems), *_quality(evaluations, name), *_published(name), _trained(evaluations, name)]
        for name in _present(TABLE_7, systems)
    ]
    return _markdown(header, rows)


def by_intensity(evaluations: Results, systems: Systems) -> str:
    """PSNR in rain of each strength, and that of the rainy frames."""
    groups = list(next((result["groups"] for result in evaluations.values()), {}))
    rows = []
    if groups:
        first = next(iter(evaluations.values()))
        rows.append(["rainy", *(f"{first['groups'][group]['psnr_rgb']['input']:.2f}" for group in groups), ""])
    for name in _present(INTENSITIES, systems):
        result = evaluations.get(name, {}).get("groups", {})
        cells = [f"{result[group]['psnr_rgb']['output']:.2f}" if group in result else MISSING for group in groups]
        rows.append([label(name, systems), *(cells or [MISSING]), _trained(evaluations, name)])
    return _markdown(["network", *(groups or ["every strength"]), "patches seen"], rows)


def compact(evaluations: Results, costs: Results, systems: Systems) -> str:
    """The compact networks without and with a teacher, beside DAiAM."""
    header = ["network", "parameters", "GMAC", "ms", "PSNR", "SSIM", "distilled PSNR", "distilled SSIM", "patches seen"]
    rows = []
    for name in _present((*COMPACT, "daiam"), systems):
        taught = f"{name}-distilled"
        has_teacher = taught in systems
        with_teacher = _quality(evaluations, taught) if has_teacher else ("", "")
        seen = [_trained(evaluations, each) for each in ((name, taught) if has_teacher else (name,))]
        both = seen[0] if len(set(seen)) == 1 else "; distilled ".join(seen)
        rows.append([label(name, systems), *_cost(costs, name), *_quality(evaluations, name), *with_teacher, both])
    return _markdown(header, rows)


def recurrent(evaluations: Results, costs: Results, systems: Systems) -> str:
    """One, two and three recurrent steps of encoders and decoders."""
    rows = [
        [
            label(name, systems),
            str(steps),
            *_cost(costs, system)[1:],
            *_quality(evaluations, system),
            _trained(evaluations, system),
        ]
        for name in STEPS
        for steps, system in enumerate((name, f"{name}-2-steps", f"{name}-3-steps"), 1)
        if system in systems
    ]
    return _markdown(["network", "steps", "GMAC", "ms", "PSNR", "SSIM", "patches seen"], rows)


def _present(names: tuple[str, ...], systems: Systems) -> list[str]:
    return [name for name in names if name in systems]


def label(name: str, systems: Systems) -> str:
    """What a system is called: as in the paper; with the network that stands for it, where that is another."""
    network = systems.get(name, name)
    return f"`{name}`" if name not in LABELS else LABELS[name] + (f" (`{network}`)" if network != name else "")


def _quality(evaluations: Results, name: str) -> tuple[str, str]:
    """PSNR and SSIM over RGB."""
    if name not in evaluations:
        return MISSING, MISSING
    return tuple(  # type: ignore[return-value]
        f"{evaluations[name][metric]['output']:.{digits}f}" for metric, digits in (("psnr_rgb", 2), ("ssim_rgb", 3))
    )


def _published(name: str) -> tuple[str, str]:
    return f"{PAPER[name].psnr:.2f}", f"{PAPER[name].ssim:.3f}"


def _published_cost(name: str) -> tuple[str, str, str]:
    return PAPER[name].parameters, f"{PAPER[name].gmac:,}", str(PAPER[name].milliseconds)


def _cost(costs: Results, name: str) -> tuple[str, str, str]:
    """Parameters, GMAC a frame of 720×480 and milliseconds."""
    if name not in costs:
        return MISSING, MISSING, MISSING
    cost = costs[name]
    gmac, ms = cost["macs"] / 1e9, cost.get("ms")
    return f"{cost['parameters']:,}", f"{gmac:,.{0 if gmac > 10 else 1}f}", MISSING if ms is None else f"{ms:.2f}"


def _trained(evaluations: Results, name: str) -> str:
    """How far training got: all of the protocol's patches, or how many of them."""
    if name not in evaluations:
        return MISSING
    seen, wanted = evaluations[name]["patches"], evaluations[name]["patches_wanted"]
    return f"{seen:,}" if seen >= wanted else f"{seen:,} of {wanted:,}"


def _markdown(header: list[str], rows: list[list[str]]) -> str:
    """The table; nothing if it has no rows."""
    if not rows:
        return ""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
