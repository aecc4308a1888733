"""What is in a pack, byte by byte: the headers of its objects, and the sizes a delta begins with. Pure.

Rules: nothing is believed. A size is returned before anything is allocated for it, and no number may have more bytes
than git could need for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploykit.errors import PackError
from deploykit.git.objectformat import KIND_NAMES, OFS_DELTA, REF_DELTA

if TYPE_CHECKING:
    from mmap import mmap


def object_head(data: bytes | mmap, pos: int) -> tuple[int, int, int]:
    """Read the kind and the size of the object at `pos`; return them and the position after.

    Raises:
        IndexError: `data` ends inside.
        ValueError: the size has more digits than any object needs.
    """
    byte = data[pos]
    pos += 1
    kind = byte >> 4 & 7
    size = byte & 15
    shift = 4
    while byte & 128:
        byte = data[pos]
        pos += 1
        size |= (byte & 127) << shift
        shift += 7
        if shift > 67:  # more than any object needs: an attack
            raise ValueError("an impossible size")
    return kind, size, pos


def base_distance(data: bytes | mmap, pos: int) -> tuple[int, int]:
    """Read how far before an OFS_DELTA its base lies; return it and the position after.

    Raises:
        IndexError: `data` ends inside.
        ValueError: the distance has more digits than any pack needs.
    """
    byte = data[pos]
    pos += 1
    distance = byte & 127
    while byte & 128:
        byte = data[pos]
        pos += 1
        distance = (distance + 1) << 7 | byte & 127
        if distance >> 67:
            raise ValueError("an impossible distance")
    return distance, pos


def read_header(data: bytes, pos: int, offset: int, id_size: int) -> tuple[int, int, int | bytes | None, int]:
    """Read the whole header of the object at `pos`, which lies at `offset` of its pack.

    Returns:
        Its kind, its size, the base of a delta (offset or binary id), and the position after.

    Raises:
        IndexError: `data` ends inside the header.
        PackError: no object has such a header.
    """
    try:
        kind, size, pos = object_head(data, pos)
    except ValueError:
        raise PackError(f"the object at {offset} has an impossible size") from None
    if kind in KIND_NAMES:
        return kind, size, None, pos
    if kind == OFS_DELTA:
        try:
            back, pos = base_distance(data, pos)
        except ValueError:
            back = 0
        if back == 0 or offset - back < 12:
            raise PackError(f"the delta at {offset} has its base outside the pack")
        return kind, size, offset - back, pos
    if kind == REF_DELTA:
        base = data[pos : pos + id_size]
        if len(base) < id_size:
            raise IndexError
        return kind, size, base, pos + id_size
    raise PackError(f"the object at {offset} is of no known kind")


def delta_result_size(delta: bytes) -> int:
    """Return the size of what a delta makes, which follows the size of its base at its beginning.

    Raises:
        IndexError: the delta ends before.
    """
    pos = 0
    result = 0
    for _ in range(2):
        result = shift = 0
        while True:
            byte = delta[pos]
            pos += 1
            result |= (byte & 127) << shift
            shift += 7
            if not byte & 128:
                break
    return result
