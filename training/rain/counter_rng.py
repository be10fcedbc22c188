"""Counter-based random numbers: a number is a pure function of (seed, stream, index).

A sequential generator would tie every image to its neighbours in the batch and every frame to the frames before it.
A hash does not: image `i` of a batch, streak `k` of frame `t` or the drop born in a given second can each be
drawn alone, in any order, on any device, and come out the same.
"""

from typing import TypeVar

import torch
from torch import Tensor

Whole = TypeVar("Whole", Tensor, int)

_MASK = 0xFFFFFFFF
_GOLDEN = 0x9E3779B9


def mix(x: Whole) -> Whole:
    """Scramble int64 values in 0..2³²-1 by Ellis' `lowbias32`: elementwise integers, so equal on every device."""
    x = x & _MASK
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & _MASK
    x = ((x ^ (x >> 15)) * 0x846CA68B) & _MASK
    return x ^ (x >> 16)


def derive(seed: Tensor, stream: int, index: Tensor | int = 0) -> Tensor:
    """Return new seeds for the numbered `index` of a `stream`; the arguments broadcast."""
    if isinstance(index, int):  # by Python's own numbers: on a GPU each would be a copy that waits
        return mix(seed + mix(index * _GOLDEN + stream * 0x85EBCA6B))
    return mix(seed + mix(index.to(seed.device, torch.int64) * _GOLDEN + stream * 0x85EBCA6B))


def uniform(seed: Tensor, stream: int, index: Tensor | int = 0, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Float32 numbers in `low`..`high`, one for each broadcast (seed, index)."""
    unit = (derive(seed, stream, index) >> 8).to(torch.float32) * (1.0 / (1 << 24))
    return low + (high - low) * unit


def normal(seed: Tensor, stream: int, index: Tensor | int = 0) -> Tensor:
    """Float32 standard normal numbers by Box and Muller's method."""
    radius = torch.sqrt(-2.0 * torch.log1p(-uniform(seed, stream, index)))
    return radius * torch.cos(2.0 * torch.pi * uniform(seed, stream + 0x1000, index))


def bits(seed: Tensor, stream: int, count: int, below: float) -> Tensor:
    """`count` int32 numbers that are 1 with probability `below` and else 0, from one seed: a quick field of noise.

    The same hash on native 32-bit words, whose products wrap as the hash wants them to.
    """
    start = derive(seed, stream)
    x = torch.arange(count, dtype=torch.int32, device=seed.device).add_((start - (1 << 31)).to(torch.int32))
    x.bitwise_xor_((x >> 16).bitwise_and_(0xFFFF)).mul_(0x7FEB352D)
    x.bitwise_xor_((x >> 15).bitwise_and_(0x1FFFF)).mul_(0x846CA68B - (1 << 32))
    return ((x >> 16).bitwise_and_(0xFFFF) < round(below * 65536)).to(torch.int32)


def ragged(counts: Tensor) -> tuple[Tensor, Tensor]:
    """Enumerate `counts[i]` members of each owner `i`.

    Returns:
        (owner, member), each int64 [sum(counts)]: owner 0,0,0,1,1,… and member 0,1,2,0,1,…
    """
    ends = torch.cumsum(counts, 0)
    total = int(ends[-1]) if counts.numel() else 0
    owner = torch.repeat_interleave(torch.arange(counts.numel(), device=counts.device), counts, output_size=total)
    return owner, torch.arange(total, device=counts.device) - (ends - counts)[owner]
