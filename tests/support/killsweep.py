"""Kill a command at each system call that changes something, and look at what is left.

    report = kill_sweep(
        [sys.executable, "-m", "deploykit", "mirror", "sync", "..."],
        roots=[mirror_path],            # only calls that touch these directories count (and sockets, with network=True)
        prepare=make_the_state_before,  # called before every run; the paths stay the same
        check=look_at_what_is_left,     # called after every run with a `Run`; raises AssertionError
    )
    print(report)

How: one run under `strace -f` records every state-changing call. Then one run for each of them, with strace's own
`-e inject=CALL:signal=KILL:when=N`: the process dies as it enters that call, before the call does anything. What would
be left "after" a call is what is left before the next one, and the last run is not killed at all.

Rules:

* `when=` counts for each thread and each call by itself, so points are pairs (call, N), numbered as one thread saw
  them; with several threads the first one to get to its Nth call dies, and the process with it.
* A run that was told to die must have died of SIGKILL: strace ends by the same signal as the command, and its trace
  names the process. A point that no run reached is tried again, then counted as missed; missed points beyond
  `allow_missed` are a failure, and so is a sweep that found no point at all.
* Threads and peers change the order of calls from run to run, so a run may die at another call than the one recorded
  as its Nth. The trace says which; the point is then tried again, and a kind of call (names without numbers) that was
  recorded and at which no run died counts as missed too. An error that met no call on `roots` at all, or one that only
  reads, is no full disk's: nothing is judged by it.
* The recorded run compiles the Python modules that it finds uncompiled; a run that did is made again, so that no later
  one opens other files than the recorded one did. The others write no compiled module.
* A command may have children. Killing one of those is a point of its own kind (`child_killed`): the command lives.
  Whatever is left running when the command is gone is ended, known by a variable in its environment.
* `sample=N` runs N points drawn at random (each kind of call at least once if N allows), by a seed that is printed.
  Without it $DEPLOYKIT_SWEEP_SAMPLE says how many (a number, or `all`, the default); $DEPLOYKIT_FULL_SWEEP means all.
  The seed comes from $DEPLOYKIT_SWEEP_SEED, and is always the same where CI=true. `sample=sample_size(3)` is for what
  costs much a point: 3, or all, or fewer where the environment says so.

`error_sweep` does the same with an error (`ENOSPC`, `EIO`) instead of the signal: the command is expected to live, so
`check` looks at its exit code and output too.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
import re
import secrets
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.support.needs import in_ci, needs
from tests.support.straceparse import (
    NEEDS_DISK,
    NEEDS_SPACE,
    STATE_CHANGING,
    Point,
    call_made,
    compiles,
    draw,
    meant,
    points_in,
)

__all__ = [
    "NEEDS_DISK",
    "NEEDS_SPACE",
    "STATE_CHANGING",
    "Point",
    "Report",
    "Run",
    "error_sweep",
    "kill_sweep",
    "record",
    "sample_size",
]

#: The process stops for the calls that are traced alone: a third faster. strace injects no signal so.
_FAST = "--seccomp-bpf"
_KILLED = re.compile(r"^(\d+)\s+\+\+\+ killed by SIGKILL", re.MULTILINE)
_MARK = "KILLSWEEP_RUN"
#: A file that changes meanwhile is compiled again by each run; that many are enough then.
_MOST_RECORDINGS = 4
#: What is added to a point's number, try by try: calls of another thread may have come earlier or later.
_TRIES = (0, 0, 1, -1, 2, -2, 3)


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """What one run came to.

    `killed`: the command died of SIGKILL. `child_killed`: only a child of it did. `injected`: an error was injected
    at a point. `returncode` is the command's (negative: the signal). `point` is None for a run that nothing was done
    to. `kind` is the call it was really disturbed at.
    """

    point: Point | None
    returncode: int
    stdout: str
    stderr: str
    killed: bool = False
    child_killed: bool = False
    injected: bool = False
    kind: str = ""


@dataclass(kw_only=True, slots=True)
class Report:
    """What a sweep found. `str()` is a few lines to print."""

    points: int
    ran: int = 0
    hit: list[Point] = field(default_factory=list)
    child_hit: list[Point] = field(default_factory=list)
    missed: list[Point] = field(default_factory=list)
    kinds: set[str] = field(default_factory=set)
    unseen: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    seed: int = 0
    seconds: float = 0.0

    @property
    def distinct(self) -> int:
        """How many different points the command (or a child of it) died at, or failed at."""
        return len({(p.call, p.nth) for p in (*self.hit, *self.child_hit)})

    def __str__(self) -> str:
        calls = ", ".join(f"{n} {c}" for c, n in Counter(p.call for p in (*self.hit, *self.child_hit)).most_common())
        drawn = "all" if self.ran == self.points else f"a sample of {self.ran} (DEPLOYKIT_SWEEP_SEED={self.seed})"
        lines = [
            f"sweep: {self.points} points, ran {drawn}; {self.distinct} distinct points hit ({calls}), "
            f"{len(self.child_hit)} of them in a child, {len(self.kinds)} kinds of call; {len(self.missed)} points "
            f"and {len(self.unseen)} kinds missed, {len(self.failures)} failures, {self.seconds:.0f} s"
        ]
        lines += [f"  missed: {point}" for point in self.missed[:10]]
        lines += [f"  missed: {kind[:160]}" for kind in self.unseen[:10]]
        lines += [f"  FAILED at {failure}" for failure in self.failures[:10]]
        return "\n".join(lines)


def kill_sweep(
    argv: Sequence[str],
    *,
    roots: Sequence[Path | str],
    check: Callable[[Run], None],
    prepare: Callable[[], None] = lambda: None,
    network: bool = False,
    calls: Sequence[str] = STATE_CHANGING,
    sample: int | None = None,
    allow_missed: float = 0.0,
    env: Mapping[str, str] | None = None,
    cwd: Path | str | None = None,
    timeout: float = 120.0,
) -> Report:
    """Kill `argv` at each state-changing call; see the module's docstring.

    Args:
        network: calls on sockets count too.
        allow_missed: part of the points that may be missed (threads make counts vary), 0 to 1.
        timeout: for one run, in seconds.

    Raises:
        AssertionError: no point, a miss too many, or a check failed; the text is the report.
    """

    def run_one(lab: _Lab, point: Point) -> Run:
        return lab.run(point, f"signal=KILL:when={point.nth}")

    sweep = _Sweep(
        _Lab(argv, roots, network, env, cwd, timeout), prepare, check, sample, lambda r: r.killed or r.child_killed
    )
    return sweep.go(calls, run_one, allow_missed)


def error_sweep(
    argv: Sequence[str],
    *,
    roots: Sequence[Path | str],
    check: Callable[[Run], None],
    prepare: Callable[[], None] = lambda: None,
    error: str = "ENOSPC",
    lasting: bool = False,
    calls: Sequence[str] = NEEDS_SPACE,
    sample: int | None = None,
    allow_missed: float = 0.0,
    env: Mapping[str, str] | None = None,
    cwd: Path | str | None = None,
    timeout: float = 120.0,
) -> Report:
    """Let each of `calls` fail once with `error` (with `lasting`, from then on); otherwise like `kill_sweep`."""

    def run_one(lab: _Lab, point: Point) -> Run:
        return lab.run(point, f"error={error}:when={point.nth}{'+' if lasting else ''}")

    sweep = _Sweep(_Lab(argv, roots, False, env, cwd, timeout), prepare, check, sample, lambda r: r.injected)
    return sweep.go(calls, run_one, allow_missed)


def record(
    argv: Sequence[str],
    *,
    roots: Sequence[Path | str],
    network: bool = False,
    calls: Sequence[str] = STATE_CHANGING,
    env: Mapping[str, str] | None = None,
    cwd: Path | str | None = None,
    timeout: float = 120.0,
) -> list[Point]:
    """Run `argv` once, undisturbed, and return its points in the order of the recording."""
    return _Lab(argv, roots, network, env, cwd, timeout).record(calls)[0]


class _Lab:
    """Runs the command under strace."""

    def __init__(
        self,
        argv: Sequence[str],
        roots: Sequence[Path | str],
        network: bool,
        env: Mapping[str, str] | None,
        cwd: Path | str | None,
        timeout: float,
    ) -> None:
        self.strace = needs("strace", package="strace")
        self.argv = list(argv)
        self.roots = [str(root) for root in roots]
        self.network = network
        self.env = {**(os.environ if env is None else env), "PYTHONDONTWRITEBYTECODE": "1"}
        self.cwd = cwd
        self.timeout = timeout

    def record(self, calls: Sequence[str], prepare: Callable[[], None] | None = None) -> tuple[list[Point], Run]:
        """Run undisturbed; from the state that `prepare` makes, until a run finds all its modules compiled."""
        traced = ",".join(f"?{call}" for call in dict.fromkeys((*calls, "openat")))
        for _ in range(_MOST_RECORDINGS if prepare else 1):
            if prepare:
                prepare()
            run, trace = self._strace(
                [_FAST, "-y", "-s", "0", "-e", f"trace={traced}"], None, {"PYTHONDONTWRITEBYTECODE": ""}
            )
            assert run.returncode >= 0, f"the undisturbed run died of signal {-run.returncode}: {run.stderr[-2000:]}"
            if not compiles(trace):
                break
        points = points_in(trace, self.roots, network=self.network)
        return [point for point in points if point.call in calls], run

    def run(self, point: Point, what: str) -> Run:
        options = ["-y", "-s", "0", "-e", f"trace={point.call}", "-e", f"inject={point.call}:{what}"]
        if not what.startswith("signal="):
            options.insert(0, _FAST)
        run, trace = self._strace(options, point)
        killed = run.returncode == -signal.SIGKILL
        return Run(
            point=point,
            returncode=run.returncode,
            stdout=run.stdout,
            stderr=run.stderr,
            killed=killed and bool(_KILLED.search(trace)),
            child_killed=not killed and bool(_KILLED.search(trace)),
            injected=meant(trace, self.roots),
            kind=call_made(trace, point),
        )

    def _strace(
        self, options: Sequence[str], point: Point | None, env: Mapping[str, str] | None = None
    ) -> tuple[Run, str]:
        mark = secrets.token_hex(8)
        with (
            tempfile.NamedTemporaryFile(prefix="killsweep-", suffix=".trace") as trace,
            tempfile.TemporaryFile() as out,
            tempfile.TemporaryFile() as err,
        ):
            command = [str(self.strace), "-f", "-q", "-o", trace.name, *options, "--", *self.argv]
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=self.cwd,
                env={**self.env, **(env or {}), _MARK: mark},
                start_new_session=True,
            )
            try:
                in_time = _wait_for_command(process, self.timeout)
                # strace follows what the command left behind to its end. A process shows no environment while it
                # begins another program, so one look may miss it.
                deadline = time.monotonic() + 60
                while process.poll() is None and time.monotonic() < deadline:
                    _end_marked(mark, but=process.pid)
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(0.1)
            finally:
                _end_marked(mark)
                process.kill()
                process.wait()
            assert in_time, f"no end within {self.timeout} s at {point}: {_text(err)[-2000:]}"
            run = Run(point=point, returncode=process.returncode, stdout=_text(out), stderr=_text(err))
            return run, Path(trace.name).read_text(errors="replace")


def _text(file: object) -> str:
    file.seek(0)  # type: ignore[attr-defined]
    data: bytes = file.read()  # type: ignore[attr-defined]
    return data.decode(errors="replace")


def _wait_for_command(strace: subprocess.Popen[bytes], timeout: float) -> bool:
    """Wait until the command that strace runs is gone, whatever it left behind; tell whether it was in time."""
    deadline = time.monotonic() + timeout
    command = 0
    while time.monotonic() < deadline:
        if strace.poll() is not None:
            return True
        if not command:
            children = Path(f"/proc/{strace.pid}/task/{strace.pid}/children")
            with contextlib.suppress(OSError):
                # strace also forks itself, to try out what the kernel can do.
                pids = children.read_text().split()
                command = next((int(p) for p in pids if not _same_program(int(p), strace.pid)), 0)
        elif not Path(f"/proc/{command}").exists():
            return True
        time.sleep(0.005)
    return False


def _same_program(pid: int, other: int) -> bool:
    return Path(f"/proc/{pid}/exe").readlink() == Path(f"/proc/{other}/exe").readlink()


def _end_marked(mark: str, *, but: int = 0) -> None:
    """End what a run left behind: processes, and only those, that carry its mark in their environment."""
    wanted = f"{_MARK}={mark}".encode()
    deadline = time.monotonic() + 10
    while True:
        left = [pid for pid in _pids() if pid != but and _carries(pid, wanted)]
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if not left or time.monotonic() > deadline:
            return
        time.sleep(0.01)


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _carries(pid: int, wanted: bytes) -> bool:
    try:
        return wanted in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


class _Sweep:
    def __init__(
        self,
        lab: _Lab,
        prepare: Callable[[], None],
        check: Callable[[Run], None],
        sample: int | None,
        worked: Callable[[Run], bool],
    ) -> None:
        self.lab, self.prepare, self.check, self.worked = lab, prepare, check, worked
        self.sample = sample_size() if sample is None else sample
        # The same points each time in CI, as with generated tests: a run that lands or blocks a change must not hang on
        # chance. `nox -s sweep` runs them all.
        drawn = 0 if in_ci() else random.SystemRandom().randrange(10**6)
        self.seed = int(os.environ.get("DEPLOYKIT_SWEEP_SEED") or drawn)

    def go(self, calls: Sequence[str], run_one: Callable[[_Lab, Point], Run], allow_missed: float) -> Report:
        start = time.monotonic()
        points, undisturbed = self.lab.record(calls, self.prepare)
        report = Report(points=len(points), seed=self.seed)
        assert points, f"no call of the command touches {self.lab.roots}: {undisturbed.stderr[-2000:]}"
        self._judge(undisturbed, report)
        chosen = draw(points, self.sample, self.seed)
        for point in chosen:
            self._one(point, run_one, report)
        report.ran = len(chosen)
        report.unseen = sorted({point.kind for point in chosen} - report.kinds)
        report.seconds = time.monotonic() - start
        # Which kinds of call were met can be asked of a whole sweep only: threads shift the counts, and a sample has
        # few points for others to make up for it. That each run died at a point of its own is asked of every sweep.
        whole = report.ran == report.points
        missed = max(len(report.missed), len(report.unseen)) if whole else len(report.missed)
        assert report.distinct, str(report)
        assert not report.failures, str(report)
        # A small sample cannot be finer than one point.
        assert missed <= math.ceil(allow_missed * len(chosen)), str(report)
        return report

    def _one(self, point: Point, run_one: Callable[[_Lab, Point], Run], report: Report) -> None:
        reached = False
        for shift in _TRIES if point.kind not in report.kinds else (0,) * 3:
            self.prepare()
            run = run_one(self.lab, replace(point, nth=max(1, point.nth + shift)))
            if self.worked(run):
                if not reached:
                    (report.child_hit if run.child_killed else report.hit).append(point)
                reached = True
                report.kinds.add(run.kind)
                self._judge(run, report)
                if point.kind in report.kinds:
                    return  # else another call was where this one used to be: try beside it
        if not reached:
            report.missed.append(point)

    def _judge(self, run: Run, report: Report) -> None:
        try:
            self.check(run)
        except AssertionError as failure:
            report.failures.append(f"{run.point or 'the undisturbed run'}: {failure}")


def sample_size(default: int | None = None) -> int | None:
    """Return how many points to run; None for all.

    It is `default`, which a number in $DEPLOYKIT_SWEEP_SAMPLE makes smaller and never larger. All are run where that is
    `all`, or where $DEPLOYKIT_FULL_SWEEP is set.
    """
    text = os.environ.get("DEPLOYKIT_SWEEP_SAMPLE", "")
    if os.environ.get("DEPLOYKIT_FULL_SWEEP") or text == "all":
        return None
    return min((size for size in (default, int(text) if text else None) if size is not None), default=None)
