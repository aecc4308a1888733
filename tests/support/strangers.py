"""What another user does on this machine, for tests that run as root."""

from __future__ import annotations

import contextlib
import os
import pwd
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

NOBODY = pwd.getpwnam("nobody")


@contextlib.contextmanager
def common_directory() -> Iterator[Path]:
    """A temporary directory that every user can reach: pytest's own are private again whenever another run starts."""
    with tempfile.TemporaryDirectory(prefix="deploykit-") as made:
        path = Path(made).resolve()
        path.chmod(0o755)
        yield path


def as_nobody(command: str) -> None:
    """Run a shell command as `nobody`; it must end well."""
    done = subprocess.run(
        ["sh", "-c", command],
        user=NOBODY.pw_uid,
        group=NOBODY.pw_gid,
        extra_groups=[],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def in_child_of(user: str, act: Callable[[], str], *, umask: int = 0o022) -> str:
    """Return what `act` returns in a child process that has become `user`, with the user's own group alone."""
    who = pwd.getpwnam(user)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setgroups([])
            os.setgid(who.pw_gid)
            os.setuid(who.pw_uid)
            os.umask(umask)
            os.write(writing, act().encode()[:60000])
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as file:
        said = file.read()
    assert os.waitpid(child, 0)[1] == 0, said
    return said
