"""A shorter protocol for little time: as many patches, the same for every system, as let all complete their schedules.

Stopping each system early would compare learning rates that never came down. So each system's pace is measured for
some seconds first, and the schedule is made to fit: fewer iterations, warm-up and moving average shorter in proportion.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from derain.training.comparison.protocol import Comparison, Protocol
from derain.training.config import checked

PLANNED = 0.85
"""The share of the time that is given away; the rest is for validation, and for a pace that was measured too short."""

SMALLEST = 50
"""A fiftieth of the protocol's patches is the least that is worth a row."""

TEACHING = 1 / 3
"""What a teacher's forward pass costs of an iteration in which it learns itself."""


class Pace(NamedTuple):
    """Seconds to begin a run, and to learn from one patch."""

    start: float
    patch: float


def pace(comparison: Comparison, system: str, seconds: float) -> Pace:
    """Measured by training a system, without its teacher, for so many seconds in a folder that is thrown away."""
    systems = {system: comparison.protocol.systems[system].model_copy(update={"teacher": None})}
    endless = (*comparison.overrides, "optimiser.iterations=1000000000", "validate_every=1000000000")
    with TemporaryDirectory() as folder:
        protocol = comparison.protocol.model_copy(update={"systems": systems})
        trial = replace(comparison, protocol=protocol, folder=Path(folder), overrides=endless)

        def train(lasting: float) -> tuple[float, int]:
            began = time.monotonic()
            seen, _ = trial.train(system, minutes=lasting / 60)
            return time.monotonic() - began, seen

        train(0)  # meets cold caches, as no run after the first does
        start, before = train(0)
        whole, after = train(start + seconds)
    return Pace(start, (whole - start) / (after - before))


def fitted(
    comparison: Comparison,
    minutes: float,
    systems: list[str] | None = None,
    seconds: float = 5.0,
    told: Callable[[str, Pace], None] = lambda system, pace: None,
) -> Protocol:
    """The protocol, with fewer patches for each of the chosen systems, all of which it completes in so many minutes.

    Args:
        comparison: with the whole protocol.
        minutes: of training, on this machine; measuring comes before.
        systems: to keep, in the protocol's order; None: all.
        seconds: of training by which each network's pace is measured.
        told: called with each system and its pace.

    Raises:
        ValueError: an unknown system, a student without its teacher, or too little time.
    """
    whole = comparison.protocol
    for name in systems or ():
        comparison.config(name)
    kept = {name: system for name, system in whole.systems.items() if systems is None or name in systems}
    tree = whole.model_dump(mode="json") | {"systems": {name: system.model_dump() for name, system in kept.items()}}
    checked(Protocol, tree, Path("the chosen systems"))
    paces: dict[str, Pace] = {}
    for name, system in kept.items():
        twin = next((other for other in paces if kept[other].network == system.network), None)
        paces[name] = pace(comparison, name, seconds) if twin is None else paces[twin]
    for name, system in kept.items():
        if system.teacher is not None:
            own = paces[name]
            paces[name] = Pace(own.start, own.patch + TEACHING * paces[system.teacher].patch)
        told(name, paces[name])
    left = 60 * minutes * PLANNED - sum(pace.start for pace in paces.values())
    optimiser = comparison.config(next(iter(kept))).optimiser
    patches = left / sum(pace.patch for pace in paces.values())
    iterations = min(optimiser.iterations, int(patches / optimiser.batch))
    least = max(1, optimiser.iterations // SMALLEST)
    if iterations < least:
        raise ValueError(
            f"{minutes:g} minutes give each of {len(kept)} systems {max(0, iterations)} iterations, expected at least "
            f"{least}: choose fewer with --system, or give more --minutes"
        )
    share = iterations / optimiser.iterations
    shorter = {
        "iterations": iterations,
        "warm_up": min(round(optimiser.warm_up * share), iterations - 1),
        "ema_decay": max(0.0, 1 - (1 - optimiser.ema_decay) / share),
    }
    tree["train"]["optimiser"] = {**tree["train"].get("optimiser", {}), **shorter}
    tree["train"]["validate_every"] = iterations
    return checked(Protocol, tree, Path("the shorter protocol"))
