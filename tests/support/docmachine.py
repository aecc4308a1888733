"""A machine on which the commands of a page are run: its directories are below one of the test's."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.support.wait import wait_until

_DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: str, section: str, language: str) -> list[str]:
    """The code of a section of a page."""
    text = (_DOCS / page).read_text(encoding="utf-8").partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    found = re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert found, section
    return found


class Machine:
    """A machine whose directories are below one of ours."""

    def __init__(self, root: Path, port: int) -> None:
        self.root = root
        self._port = port
        self._running: list[subprocess.Popen[bytes]] = []
        for name in ("etc/deploykit", "var/lib", "var/spool", "srv/git", "bin"):
            (root / name).mkdir(parents=True)
        wrapper = root / "bin" / "deploykit"
        wrapper.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m deploykit "$@"\n')
        wrapper.chmod(0o755)
        self._env = {
            "PATH": f"{root / 'bin'}:{os.environ['PATH']}",
            "HOME": str(root),
            "LANG": "C.UTF-8",
            "DEPLOYKIT_CONFIG": str(root / "etc/deploykit/deploykit.toml"),
        }

    def here(self, text: str) -> str:
        """The text, with our directories and our port."""
        moved = re.sub(
            r"(?<![\w.])/(etc/deploykit|var/lib/deploykit|var/spool/deploykit|srv)\b", rf"{self.root}/\1", text
        )
        return moved.replace("61613", str(self._port))

    def run(self, text: str) -> subprocess.CompletedProcess[str]:
        """Run a block of the page to its end."""
        return subprocess.run(
            ["sh", "-e", "-c", self.here(text)],
            cwd=self.root, env=self._env, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def must(self, text: str) -> str:
        """Run a block that has to succeed; return what it printed."""
        done = self.run(text)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self, text: str, until: str) -> Path:
        """Start a daemon, and wait until it says something; return its log."""
        log = self.root / f"log{len(self._running)}"
        with log.open("wb") as file:
            process = subprocess.Popen(
                ["sh", "-c", f"exec {self.here(text)}"],
                cwd=self.root, env=self._env, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
            )  # fmt: skip
        self._running.append(process)
        wait_until(lambda: until in log.read_text() or process.poll() is not None, f"{until} from {text}", 60)
        assert process.poll() is None, log.read_text()
        return log

    def stop(self) -> None:
        """End what was started, the newest first."""
        for process in reversed(self._running):
            process.terminate()
            process.wait(60)


__all__ = ["Machine", "blocks"]
