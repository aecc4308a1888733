"""Threads that allocate share few arenas of the C library, so that a daemon's memory does not grow with its threads."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

_SCRIPT = """
import ctypes, sys, threading
from deploykit.system.memory import use_few_arenas
if sys.argv[1] == "few":
    assert use_few_arenas()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
barrier = threading.Barrier(32)
def work():
    barrier.wait()
    kept = [libc.malloc(1000) for _ in range(100)]
    barrier.wait()
threads = [threading.Thread(target=work) for _ in range(32)]
for thread in threads: thread.start()
for thread in threads: thread.join()
libc.malloc_stats()
"""


@pytest.mark.parametrize(("how", "most"), [("few", 2), ("all", 64)])
def test_a_process_with_many_threads_uses_two_arenas(how: str, most: int) -> None:
    """Without it there are more: else this test would show nothing."""
    done = subprocess.run([sys.executable, "-c", _SCRIPT, how], capture_output=True, text=True, timeout=60, check=True)
    arenas = len(re.findall(r"^Arena \d+:", done.stderr, re.MULTILINE))
    assert arenas <= most
    assert (arenas > 2) == (how == "all")
