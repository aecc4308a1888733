"""Ports, directories and processes that belong to this test process, and to nobody else.

Rules: a port is leased for as long as its server may come back, also against other test processes (pytest-xdist,
a second run on the same machine); a directory and a process live no longer than the test process, however that ends.
"""

from __future__ import annotations

import atexit
import os
import random
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.brokers import reaper

HARD_BOUND = 4 * 3600.0
"""Seconds after which the watchman ends every server of this test process, even if the tests still hang on.

A slow machine takes more than an hour for all of them, and needs its brokers to the end.
"""


class PortLease:
    """A free loopback port, kept for one server over its restarts.

    It lies below the range from which the kernel takes ports for outgoing connections: a port up there may be gone
    by the time a killed broker comes back. The lease is an abstract UNIX socket, so it ends with the process.
    """

    def __init__(self) -> None:
        low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
        candidates = list(range(max(1024, low - 12768), low))
        random.shuffle(candidates)
        for port in candidates:
            lease = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                lease.bind(f"\0deploykit-test-port-{port}")
                with socket.socket() as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(("0.0.0.0", port))  # never listens; any listener on any address makes it fail
            except OSError:
                lease.close()
                continue
            self.port = port
            self._lease = lease
            return
        raise RuntimeError("no free port below the ephemeral range")

    def release(self) -> None:
        """Give the port back."""
        self._lease.close()


class Run:
    """What this test process started: one mark, one watchman process."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.mark = f"run-{secrets.token_hex(8)}"
        self._watchman = subprocess.Popen(
            [sys.executable, "-I", "-S", reaper.__file__, self.mark, str(HARD_BOUND)],
            stdin=subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C at the terminal is for pytest, not for the one who cleans up after it
        )
        atexit.register(self.close)

    def new_directory(self, name: str) -> Path:
        """Make a directory of mode 0700 that is removed at the latest when this process has ended."""
        path = Path(tempfile.mkdtemp(prefix=f"deploykit-{name}-"))
        self._tell("+", path)
        return path

    def remove_directory(self, path: Path) -> None:
        """Remove a directory made by `new_directory`."""
        shutil.rmtree(path, ignore_errors=True)
        self._tell("-", path)

    def close(self) -> None:
        """End everything and wait for it; only in the process that owns the run, not in a forked child."""
        if os.getpid() != self.pid or self._watchman.poll() is not None:
            return
        assert self._watchman.stdin is not None
        self._watchman.stdin.close()
        self._watchman.wait(timeout=60)

    def _tell(self, sign: str, path: Path) -> None:
        assert self._watchman.stdin is not None
        self._watchman.stdin.write(os.fsencode(f"{sign}{path}\n"))
        self._watchman.stdin.flush()


_run: Run | None = None


def current_run() -> Run:
    """Return the run of this process; a forked child gets its own."""
    global _run  # noqa: PLW0603
    if _run is None or _run.pid != os.getpid():
        _run = Run()
    return _run


def listening_addresses(pids: list[int]) -> set[tuple[str, int]]:
    """Return (address, port) of every TCP socket these processes listen on, read from /proc."""
    inodes: set[str] = set()
    for pid in pids:
        for descriptor in _descriptors(pid):
            if descriptor.startswith("socket:["):
                inodes.add(descriptor[8:-1])
    found: set[tuple[str, int]] = set()
    for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        path = Path("/proc/net") / table
        for line in path.read_text(encoding="ascii").splitlines()[1:] if path.exists() else []:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:  # 0A is LISTEN
                host, port = fields[1].split(":")
                words = [bytes.fromhex(host[i : i + 8]) for i in range(0, len(host), 8)]
                packed = b"".join(w[::-1] if sys.byteorder == "little" else w for w in words)
                found.add((socket.inet_ntop(family, packed), int(port, 16)))
    return found


def _descriptors(pid: int) -> list[str]:
    found: list[str] = []
    try:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            try:
                found.append(str(entry.readlink()))
            except FileNotFoundError:
                continue  # closed while we looked
    except (FileNotFoundError, ProcessLookupError):
        pass  # the process ended while we looked
    return found
