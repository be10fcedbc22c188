"""Whether a video file is cut short: its number of frames alone does not say so in every container."""

from pathlib import Path

COUNTED = (".mp4", ".m4v", ".mov", ".avi")
"""Suffixes of containers that store how many frames they hold. For others OpenCV multiplies their duration by the rate,
and where the sound is longer than the picture that is more than there are."""

EBML, SEGMENT = bytes.fromhex("1a45dfa3"), bytes.fromhex("18538067")
HEAD_BYTES = 4096


def is_cut_short(path: Path) -> bool:
    """Of a video that gave fewer frames than OpenCV expected; False where its container does not tell.

    Matroska, .mkv and .webm, says how many bytes it has: RFC 8794 (EBML), section 6, and RFC 9559.
    """
    if path.suffix.lower() in COUNTED:
        return True
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if not head.startswith(EBML):
        return False
    at, size = _size(head, len(EBML))
    at += size or 0
    if not head.startswith(SEGMENT, at):
        return False
    at, size = _size(head, at + len(SEGMENT))
    return size is not None and at + size > path.stat().st_size


def _size(data: bytes, at: int) -> tuple[int, int | None]:
    """Where an element's content begins, and how many bytes it has; None where that was not known to its writer."""
    length = 9 - data[at].bit_length()  # as many bytes as the first has leading zeros, and one
    unknown = (1 << 7 * length) - 1
    size = int.from_bytes(data[at : at + length], "big") & unknown
    return at + length, size if size != unknown else None
