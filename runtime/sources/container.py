"""Whether a video file is cut short: its number of frames alone does not say so in every container."""

from pathlib import Path

ISO = (".mp4", ".m4v", ".mov")
"""Suffixes of containers made of boxes. They count their frames, those that an edit list hides among them."""

RIFF, UNKNOWN = b"RIFF", (1 << 32) - 1
EBML, SEGMENT = bytes.fromhex("1a45dfa3"), bytes.fromhex("18538067")
HEAD_BYTES = 4096


def is_cut_short(path: Path) -> bool:
    """Of a video that gave fewer frames than OpenCV expected; False where its container does not tell.

    An AVI is chunks that say how long they are, and counts the frames that its writer left empty too. ISO files are
    boxes that say so: ISO/IEC 14496-12, section 4.2. Matroska, .mkv and .webm, says how many bytes it has: RFC 8794
    (EBML), section 6, and RFC 9559. For others OpenCV multiplies their duration by the rate, and where the sound is
    longer than the picture that is more than there are.
    """
    if path.suffix.lower() in ISO:
        return not _has_whole_boxes(path)
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if head.startswith(RIFF):
        return not _has_whole_chunks(path)
    if not head.startswith(EBML):
        return False
    at, size = _size(head, len(EBML))
    at += size or 0
    if not head.startswith(SEGMENT, at):
        return False
    at, size = _size(head, at + len(SEGMENT))
    return size is not None and at + size > path.stat().st_size


def _has_whole_boxes(path: Path) -> bool:
    """Whether a file is boxes to its very end, with the one among them that describes the film."""
    end, at, kinds = path.stat().st_size, 0, set()
    with path.open("rb") as file:
        while at < end:
            file.seek(at)
            head = file.read(16)
            size = int.from_bytes(head[:4], "big")
            if size == 1:  # it did not fit
                size = int.from_bytes(head[8:], "big")
            kinds.add(head[4:8])
            at += max(size or end - at, 8)  # without a size it is all that follows
    return at == end and b"moov" in kinds


def _has_whole_chunks(path: Path) -> bool:
    """Whether an AVI's chunks, of which a long one has several, end inside the file; one of unknown length is open."""
    end, at = path.stat().st_size, 0
    with path.open("rb") as file:
        while (head := file.read(8)).startswith(RIFF):
            size = int.from_bytes(head[4:], "little")
            if size == UNKNOWN:  # its writer could not go back to write it
                return True
            at += 8 + size
            file.seek(at)
    return at <= end


def _size(data: bytes, at: int) -> tuple[int, int | None]:
    """Where an element's content begins, and how many bytes it has; None where that was not known to its writer."""
    length = 9 - data[at].bit_length()  # as many bytes as the first has leading zeros, and one
    unknown = (1 << 7 * length) - 1
    size = int.from_bytes(data[at : at + length], "big") & unknown
    return at + length, size if size != unknown else None
