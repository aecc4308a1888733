"""How the C library shares out memory between threads."""

from __future__ import annotations

import ctypes
from typing import Final

#: `M_ARENA_MAX` of glibc's malloc.h.
_M_ARENA_MAX: Final = -8
#: Arenas that are enough: the interpreter's lock lets one thread at a time allocate, but for a few C functions.
_ENOUGH: Final = 2


def use_few_arenas() -> bool:
    """Have all threads of this process share two of malloc's arenas; return whether the C library can do that.

    By default glibc makes eight for each processor, and each keeps what its threads ever had at a time: a daemon with
    thirty threads grows for hours. Call it before threads are started. `MALLOC_ARENA_MAX` does the same from outside.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another C library
        return False
    return bool(mallopt(_M_ARENA_MAX, _ENOUGH))
