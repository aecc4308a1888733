"""A real ssh-agent on a socket of its own, ended by its pid."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from tests.support.needs import needs
from tests.support.ports import listens
from tests.support.wait import wait_until


class SshAgent:
    """An ssh-agent in the foreground. Its socket has a short path: the kernel allows 107 bytes."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="dk-agent-")
        self.socket = Path(self._directory.name, "s")
        program = needs("ssh-agent", package="openssh-client")
        self._process = subprocess.Popen(
            [program, "-D", "-a", str(self.socket)],
            env={"PATH": "/usr/bin:/bin", "HOME": self._directory.name},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(lambda: listens(self.socket), "the agent listens")

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to find it."""
        return {"SSH_AUTH_SOCK": str(self.socket)}

    def add(self, key: Path, *options: str) -> None:
        """Let it hold a private key file without a passphrase."""
        self._ssh_add(*options, str(key))

    def remove_all(self) -> None:
        """Let it forget its keys."""
        self._ssh_add("-D")

    def end(self) -> None:
        """End it: its socket listens no more."""
        self._process.kill()
        self._process.wait(10)

    def _ssh_add(self, *words: str) -> None:
        program = needs("ssh-add", package="openssh-client")
        env = {"PATH": "/usr/bin:/bin", "HOME": self._directory.name, **self.environment}
        done = subprocess.run(
            [str(program), *words], env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr

    def __enter__(self) -> SshAgent:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        self._directory.cleanup()
