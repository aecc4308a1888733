"""Run one deploy script: by argv, in its own process group, with a clean environment, a time-out and a capped output.

Rules:

* No shell. The environment is an allow-list: neither `LD_PRELOAD` nor `GIT_DIR` of the caller reaches a script.
* A script runs only if nobody but root and the user it runs as can change it.
* For that, owner and mode of the file, of every directory above it and of its interpreter are checked on open
  descriptors (`system.ownership`). When it runs, it is checked once more to be the same file.
* When the script ends or its time is up, what is left in its process group is killed: a grandchild that holds stdout
  open costs no time. A service that is to stay must leave the group (setsid, systemd).
* A program that was written a moment ago may be "busy": a child that another thread started meanwhile holds it open for
  writing until it becomes its own program (go.dev/issue/22315). It is tried again for a while.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import logging
import os
import re
import selectors
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import attrs

from deploykit.errors import ScriptFailed
from deploykit.release.model import StepRecord
from deploykit.system.backoff import Backoff
from deploykit.system.ownership import OthersCanChange, check_owned, open_owned, require_owned, user_name
from deploykit.system.users import AS_OWNER, Identity

_log = logging.getLogger(__name__)

#: step, "stdout" or "stderr", text: called as output comes.
OnOutput = Callable[[str, str, str], None]

PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: Taken over from our own environment when they look harmless.
_INHERITED: Final = ("LANG", "LC_ALL", "LC_CTYPE", "LC_MESSAGES", "TZ")
_HARMLESS: Final = re.compile(r"[A-Za-z0-9_.@:+/-]{1,64}\Z")
_GRACE: Final = 5.0
_CHUNK: Final = 65536
#: How long a program that is open for writing is tried again, seconds: a child becomes its own program within
#: milliseconds, on a busy machine within a second or two. After that somebody really holds it.
_BUSY_FOR: Final = 5.0
_BUSY_PAUSE: Final = Backoff(initial=0.005, maximum=0.2)
#: As much as the kernel reads of a script to find its interpreter.
_FIRST_LINE: Final = 256


@attrs.frozen(kw_only=True, slots=True)
class Script:
    """One script to run.

    Args:
        step: what the step is called.
        path: the program; its last component may not be a symlink.
        arguments: after the program's name.
        directory: where it runs.
        environment: all of it.
        timeout: seconds.
        output_limit: bytes of output kept.
        identity: who it runs as; None: the present user.
        trusted: the uids that may own it and the directories above it: root, and who it runs as.
        umask: the script's; None: this process's own.
    """

    step: str
    path: Path
    arguments: tuple[str, ...]
    directory: Path
    environment: Mapping[str, str] = attrs.field(repr=False)
    timeout: float
    output_limit: int = 65536
    identity: Identity | None = None
    trusted: frozenset[int] = frozenset({0})
    umask: int | None = None


def clean_environment(identity: Identity | None, extra: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a script: fixed PATH, locale and time zone, the user's own HOME, and `extra`."""
    environment = {"PATH": PATH, "LANG": "C.UTF-8"}
    for name in _INHERITED:
        value = os.environ.get(name, "")
        if _HARMLESS.match(value):
            environment[name] = value
    if identity is not None:
        environment |= {
            "HOME": identity.home,
            "USER": identity.name,
            "LOGNAME": identity.name,
            "SHELL": identity.shell,
        }
    else:
        environment["HOME"] = str(Path("~").expanduser())
    environment.update(extra)
    return environment


def run_script(
    script: Script, on_output: OnOutput | None = None, on_start: Callable[[int], None] | None = None
) -> StepRecord:
    """Run a script to its end and return the record; a non-zero exit or a time-out is a `failed` record.

    Args:
        on_start: called with its process's number as soon as there is one.

    Raises:
        ScriptFailed: it could not be started: not a file, not executable, not trusted, no interpreter.
    """
    started = time.monotonic()
    fd = open_checked(script.path, script.trusted, script.directory)
    try:
        process = _start(script)
        try:
            if on_start is not None:
                on_start(process.pid)
            run = _RunningScript(script, process, on_output)
            _require_same(fd, script.path)
            timed_out = run.wait(started + script.timeout)
        except BaseException:
            _kill_group(process.pid, signal.SIGKILL)
            process.wait()
            raise
        finally:
            for pipe in (process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()
    finally:
        os.close(fd)
    code = process.returncode if process.returncode >= 0 else 128 - process.returncode
    output = run.output.text()
    if timed_out:
        output += f"\n[ran longer than {script.timeout:g} s; it and what it started were killed]"
    failed = timed_out or code != 0
    return StepRecord(
        name=script.step,
        outcome="failed" if failed else "done",
        seconds=round(time.monotonic() - started, 3),
        exit_code=code,
        output=output,
    )


def open_checked(path: Path, trusted: frozenset[int], directory: Path | None = None, *, owned: bool = False) -> int:
    """Open a script and check on the descriptor that it may be run.

    Args:
        trusted: who may change it: root, and the user it runs as.
        directory: where it will run, if that is known: its interpreter may be named relative to it.
        owned: the site has an owner, whom scripts can be run as.

    Raises:
        ScriptFailed: with what to correct.
    """
    try:
        parent = open_owned(path.parent, trusted)
        try:
            fd = os.open(path.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
        finally:
            os.close(parent)
    except OthersCanChange as found:
        raise _not_safe(path, found, trusted, owned) from None
    except OSError as error:
        why = "it is a symlink" if path.is_symlink() else error.strerror
        raise ScriptFailed(f"cannot run {path}: {why}", "a readable, executable file must be there") from error
    try:
        _check_script(path, fd, trusted, directory, owned)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _check_script(path: Path, fd: int, trusted: frozenset[int], directory: Path | None, owned: bool) -> None:
    seen = os.fstat(fd)
    if not stat.S_ISREG(seen.st_mode):
        raise ScriptFailed(f"cannot run {path}: it is not a file", "correct the file")
    if not seen.st_mode & 0o111:
        why = "it is not executable (git update-index --chmod=+x, or chmod +x)"
        raise ScriptFailed(f"cannot run {path}: {why}", "correct the file")
    try:
        require_owned(str(path), fd, trusted)
        interpreter = _interpreter(fd)
        if interpreter and (interpreter.startswith("/") or directory is not None):
            _check_interpreter((directory or Path("/")) / interpreter, trusted)
    except OthersCanChange as found:
        raise _not_safe(path, found, trusted, owned) from None


def _interpreter(fd: int) -> str:
    """Return what the first line names (`#!...`), or an empty string."""
    line = os.pread(fd, _FIRST_LINE, 0).partition(b"\n")[0]
    words = line[2:].split(None, 1) if line.startswith(b"#!") else []
    return os.fsdecode(words[0]) if words else ""


def _check_interpreter(interpreter: Path, trusted: frozenset[int]) -> None:
    """Check an interpreter as a script. Those on the scripts' PATH are this machine's, as all programs there are."""
    if str(interpreter.parent) in PATH.split(":"):
        return
    try:
        if _in_proc(interpreter):
            raise ScriptFailed(
                f"cannot run a script by {interpreter}: what is below /proc is another file for each process",
                "name the interpreter itself in its first line (#!...)",
            )
        check_owned(interpreter, trusted)
    except OSError as error:
        why = f"cannot run a script by {interpreter}: {error.strerror}"
        raise ScriptFailed(why, "look at its first line (#!...)") from error


def _in_proc(path: Path) -> bool:
    """Return whether a path leads through /proc, by whatever name: /dev/fd leads there too."""
    if not os.path.ismount("/proc"):
        return False
    proc = Path("/proc").stat().st_dev
    return any(above.stat().st_dev == proc for above in path.parents)


def _not_safe(path: Path, found: OthersCanChange, trusted: frozenset[int], owned: bool) -> ScriptFailed:
    who = user_name(max(trusted))
    remedy = found.remedy
    if found.uid is not None:
        name = user_name(found.uid)
        ways = f'run_as = "{AS_OWNER}", or run_as = "{name}"' if owned else f'run_as = "{name}"'
        remedy = f"let scripts run as that user ({ways}), or {found.remedy}"
    return ScriptFailed(f"{path} is not run as {who}: others can change {found.place}: {found.why}", remedy)


def _start(script: Script) -> subprocess.Popen[bytes]:
    end = time.monotonic() + min(_BUSY_FOR, script.timeout)
    attempt = 0
    while True:
        try:
            return _popen(script)
        except (OSError, ValueError, subprocess.SubprocessError) as error:  # ValueError: no name or value of a variable
            busy = isinstance(error, OSError) and error.errno == errno.ETXTBSY
            if not busy or time.monotonic() >= end:
                why = error.strerror if isinstance(error, OSError) else str(error)
                remedy = "look at its first line (#!...) and at its mode"
                if busy:
                    remedy = "a process has it open for writing: find it (fuser -v), end it, and try again"
                raise ScriptFailed(f"cannot run {script.path}: {why}", remedy) from error
        attempt += 1
        time.sleep(_BUSY_PAUSE.pause(attempt))  # the kernel announces to nobody that a file is closed


def _popen(script: Script) -> subprocess.Popen[bytes]:
    who = script.identity if os.geteuid() == 0 else None  # without root it is the present user, and nothing can be set
    return subprocess.Popen(
        [str(script.path), *script.arguments],
        cwd=script.directory,
        env=dict(script.environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        user=who.uid if who is not None else None,
        group=who.gid if who is not None else None,
        extra_groups=who.groups if who is not None else None,
        umask=script.umask if script.umask is not None else -1,
    )


def _require_same(fd: int, path: Path) -> None:
    """Refuse a program that is not the file that was checked."""
    seen = os.fstat(fd)
    try:
        now = path.stat(follow_symlinks=False)
    except OSError:
        return  # a script may remove itself
    if (seen.st_dev, seen.st_ino) != (now.st_dev, now.st_ino):
        raise ScriptFailed(f"{path} was swapped while it was started", "find out who can write there")


class _Output:
    """The first and the last bytes of an output of any length."""

    def __init__(self, limit: int) -> None:
        self._half = max(1, limit // 2)
        self._head = bytearray()
        self._tail = bytearray()
        self._total = 0

    def add(self, data: bytes) -> None:
        self._total += len(data)
        room = self._half - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        self._tail += data
        if len(self._tail) > 2 * self._half:
            del self._tail[: -self._half]

    def text(self) -> str:
        tail = self._tail[-self._half :]
        lost = self._total - len(self._head) - len(tail)
        head = self._head.decode(errors="replace")
        if lost <= 0:
            return (self._head + tail).decode(errors="replace")
        return f"{head}\n[... {lost} bytes left out ...]\n{tail.decode(errors='replace')}"


class _RunningScript:
    """A running script: its pipes and its end are waited for together."""

    def __init__(self, script: Script, process: subprocess.Popen[bytes], on_output: OnOutput | None) -> None:
        self._script = script
        self._process = process
        self._on_output = on_output
        self.output = _Output(script.output_limit)
        decoder = codecs.getincrementaldecoder("utf-8")
        self._decoders = {"stdout": decoder("replace"), "stderr": decoder("replace")}

    def wait(self, deadline: float) -> bool:
        """Read until the script has ended; return whether its time ran out."""
        timed_out = False
        pidfd = os.pidfd_open(self._process.pid)
        try:
            with selectors.DefaultSelector() as waiting:
                for name, pipe in (("stdout", self._process.stdout), ("stderr", self._process.stderr)):
                    if pipe is not None:
                        os.set_blocking(pipe.fileno(), False)
                        waiting.register(pipe, selectors.EVENT_READ, name)
                waiting.register(pidfd, selectors.EVENT_READ, "exit")
                while True:
                    events = waiting.select(max(0.0, deadline - time.monotonic()))
                    for key, _ in events:
                        if key.data != "exit" and not self._read(key.fd, key.data):
                            waiting.unregister(key.fileobj)
                    if any(key.data == "exit" for key, _ in events):
                        break
                    if time.monotonic() >= deadline:
                        # First politely; what is still there when the grace is over is killed.
                        _kill_group(self._process.pid, signal.SIGKILL if timed_out else signal.SIGTERM)
                        deadline = time.monotonic() + _GRACE
                        timed_out = True
        finally:
            os.close(pidfd)
        # The script itself is a zombie still, so its group's number cannot be anybody else's.
        _kill_group(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for name, pipe in (("stdout", self._process.stdout), ("stderr", self._process.stderr)):
            if pipe is not None:
                self._drain(pipe.fileno(), name)
        return timed_out

    def _drain(self, fd: int, name: str) -> None:
        """Read what is in a pipe without waiting: a process that left the group may hold it open for ever."""
        for _ in range(64):
            if not self._read(fd, name):
                return

    def _read(self, fd: int, name: str) -> bool:
        try:
            data = os.read(fd, _CHUNK)
        except BlockingIOError:
            return self._process.returncode is None
        if not data:
            return False
        self.output.add(data)
        self._emit(name, self._decoders[name].decode(data))
        return True

    def _emit(self, name: str, text: str) -> None:
        if self._on_output is None or not text:
            return
        try:
            self._on_output(self._script.step, name, text)
        except Exception:  # noqa: BLE001 - a broken terminal must not break a deploy in the middle
            _log.warning("the listener to %s's output failed; going on without it", self._script.step, exc_info=True)
            self._on_output = None


def _kill_group(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
