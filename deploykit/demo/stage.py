"""The demo's surroundings: a temporary directory, processes with a log file each, and a way to end them all by pid.

Rule: whenever the demo ends, no process and no file of it stays. Processes that an interrupt kept us from recording,
and those that another process started, are found by their environment, which names the directory.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import attrs

from deploykit.errors import DemoFailed, UsageError

_STOP_SECONDS = 10.0


@attrs.frozen(kw_only=True)
class Finished:
    """A command that ended: its exit code, what it printed, and how long it took in seconds."""

    code: int
    output: str
    errors: str
    seconds: float


class Stage:
    """A directory and the processes in it. Use it as a context manager: leaving it ends every process."""

    def __init__(self, *, keep: bool) -> None:
        if shutil.which("git") is None:
            raise UsageError("git is not on PATH", "apt-get install git")
        self.root = Path(tempfile.mkdtemp(prefix="deploykit-demo-"))
        self._keep = keep
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self.logs = self.root / "logs"
        self.logs.mkdir()
        (self.root / "home").mkdir()
        # None of the caller's own git settings, and nothing that could point git at another repository.
        self._env = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.root / "home"),
            "LANG": "C.UTF-8",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_TERMINAL_PROMPT": "0",
            "PYTHONUNBUFFERED": "1",
        }
        for who in ("AUTHOR", "COMMITTER"):
            self._env[f"GIT_{who}_NAME"] = "Ada Developer"
            self._env[f"GIT_{who}_EMAIL"] = "ada@example.org"

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: object) -> None:
        for name in reversed(list(self._running)):
            self.stop(name)
        self._end_strays()
        if not self._keep:
            shutil.rmtree(self.root, ignore_errors=True)

    def _end_strays(self) -> None:
        """Send SIGKILL to every process that has our directory in its environment, and wait for their end."""
        mark = f"HOME={self.root / 'home'}".encode()
        end = time.monotonic() + _STOP_SECONDS
        while strays := [pid for pid in _processes() if mark in _environment(pid)]:
            for pid in strays:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() > end:
                return
            time.sleep(0.01)

    @staticmethod
    def command(*words: str) -> list[str]:
        """Return the `deploykit` command of the environment this demo runs in, wherever PATH points."""
        return [sys.executable, "-P", "-m", "deploykit", *words]

    def run(
        self, *argv: str, cwd: Path | None = None, env: Mapping[str, str] | None = None, timeout: float = 300.0
    ) -> Finished:
        """Run a command to its end and return the result, whatever its exit code."""
        began = time.monotonic()
        try:
            done = subprocess.run(
                argv,
                cwd=cwd or self.root,
                env={**self._env, **(env or {})},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise DemoFailed(f"{argv[0]} {argv[1]} … did not end within {timeout:.0f} s") from error
        return Finished(
            code=done.returncode,
            output=done.stdout.decode(errors="replace"),
            errors=done.stderr.decode(errors="replace"),
            seconds=time.monotonic() - began,
        )

    def show(self, *argv: str, timeout: float = 300.0) -> int:
        """Run a command that prints to our own terminal, or wherever our output goes, and return its exit code."""
        sys.stdout.flush()
        env = {**self._env, "TERM": os.environ.get("TERM", "dumb")}
        try:
            done = subprocess.run(argv, cwd=self.root, env=env, stdin=subprocess.DEVNULL, timeout=timeout, check=False)
        except subprocess.TimeoutExpired as error:
            raise DemoFailed(f"{' '.join(argv[4:7])} … did not end within {timeout:.0f} s") from error
        return done.returncode

    def must(self, *argv: str, cwd: Path | None = None, timeout: float = 300.0) -> Finished:
        """Run a command that has to succeed, and return the result.

        Raises:
            DemoFailed: it failed, or did not end within `timeout` seconds.
        """
        done = self.run(*argv, cwd=cwd, timeout=timeout)
        if done.code != 0:
            lines = (done.errors or done.output).strip().splitlines()
            raise DemoFailed(f"{' '.join(argv[:4])} … ended with {done.code}: {lines[-1] if lines else 'no output'}")
        return done

    def git(self, *argv: str, cwd: Path | None = None) -> str:
        """Run git, which has to succeed, and return its stripped output."""
        return self.must("git", *argv, cwd=cwd).output.strip()

    def start(self, name: str, *argv: str) -> None:
        """Start a long-running process; what it prints goes to `logs/NAME.log`, JSON output to `logs/NAME.out`."""
        with (self.logs / f"{name}.out").open("ab") as out, (self.logs / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                argv,
                cwd=self.root,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=log,
                start_new_session=True,
            )

    def output_of(self, name: str) -> str:
        """Return what a process has printed to standard output so far."""
        with contextlib.suppress(FileNotFoundError):
            return (self.logs / f"{name}.out").read_text(errors="replace")
        return ""

    def kill(self, name: str) -> None:
        """End a process by SIGKILL, as a power cut would."""
        process = self._running.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait(_STOP_SECONDS)

    def stop(self, name: str) -> int:
        """Send SIGTERM and return the exit code; send SIGKILL if the process does not end in time."""
        process = self._running.pop(name)
        process.terminate()
        try:
            return process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait(_STOP_SECONDS)

    def wait(self, check: Callable[[], bool], what: str, *, timeout: float = 30.0) -> float:
        """Wait until `check()` is true, and return the seconds it took.

        Raises:
            DemoFailed: it was not within `timeout` seconds, or a process of ours ended; the text has its last log line.
        """
        began = time.monotonic()
        while not check():
            for name, process in self._running.items():
                if process.poll() is not None:
                    raise DemoFailed(f"{name} ended with {process.returncode}: {self._last_line(name)}")
            if time.monotonic() - began > timeout:
                where = f"see the logs in {self.logs}" if self._keep else "run it with --keep and read its logs"
                raise DemoFailed(f"timed out after {timeout:.0f} s, waiting for {what}", where)
            time.sleep(0.01)
        return time.monotonic() - began

    def _last_line(self, name: str) -> str:
        lines = (self.logs / f"{name}.log").read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "no output"


def free_port() -> int:
    """Return a TCP port of this machine that nobody listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def answers(port: int) -> bool:
    """Return whether something on this machine accepts connections on a port."""
    with socket.socket() as sock:
        sock.settimeout(0.2)
        return sock.connect_ex(("127.0.0.1", port)) == 0


def _processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _environment(pid: int) -> list[bytes]:
    """Return a process's environment; empty for one that has ended, or belongs to another user."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []
