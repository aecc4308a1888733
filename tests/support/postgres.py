"""A real PostgreSQL for one test session: in a directory of its own, on a socket there, ended by its pid."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.needs import missing
from tests.support.wait import wait_until

_USER = "postgres"


def _bin() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        missing("PostgreSQL's server (apt-get install postgresql)")
    return found[-1].parent


@contextmanager
def running_postgres(*, fsync: bool = False) -> Iterator[str]:
    """Yield the URL of an empty database, `postgresql://…`; the server ends afterwards.

    It runs as `postgres` where the tests run as root: the server refuses to be root.
    """
    programs = _bin()
    root = Path(tempfile.mkdtemp(prefix="dkpg", dir="/tmp"))
    user = None
    if os.geteuid() == 0:
        user = _USER
        shutil.chown(root, _USER)
    data, log = root / "data", root / "log"
    initdb = [str(programs / "initdb"), "-D", str(data), "-U", "console", "-A", "trust", "-E", "UTF8", "--no-sync"]
    try:
        subprocess.run(initdb, check=True, capture_output=True, cwd=root, user=user, timeout=60)
        options = (
            f"fsync={'on' if fsync else 'off'}",
            "listen_addresses=",
            f"unix_socket_directories={root}",
            "shared_buffers=32MB",
        )
        arguments = [str(programs / "postgres"), "-D", str(data), *(part for each in options for part in ("-c", each))]
        with log.open("wb") as output:
            server = subprocess.Popen(arguments, stdout=output, stderr=output, cwd=root, user=user)
        try:
            wait_until(lambda: server.poll() is not None or b"ready to accept" in log.read_bytes(), "PostgreSQL")
            assert server.poll() is None, log.read_text()
            yield f"postgresql://console@/postgres?host={root}"
        finally:
            server.terminate()
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait(10)
    finally:
        shutil.rmtree(root, ignore_errors=True)
