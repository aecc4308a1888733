"""Jobs, queue and builds of the stub Jenkins: what is strict about it, without HTTP.

Queued builds of one job join when their parameters are equal. A quiet period holds each back; executors take them in
order. An item can be looked up until `item_lifetime` seconds after it left the queue. Builds run real commands, with
the environment that Jenkins gives them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import monotonic, time
from typing import Literal
from urllib.parse import quote

import attrs

Result = Literal["", "SUCCESS", "UNSTABLE", "FAILURE", "ABORTED", "NOT_BUILT"]
FOUR = ("DEPLOYKIT_CORRELATION_ID", "DEPLOYKIT_REPO", "DEPLOYKIT_REF", "DEPLOYKIT_COMMIT")


@attrs.define(kw_only=True)
class StubJob:
    """One job.

    Args:
        name: parts joined by `/`, as Jenkins calls its items: `shop/feature%2Flogin` is a branch of a multibranch one.
        parameters: what it defines, in addition to nothing; None: it is not parameterised.
        kind: a `folder` and a `multibranch` build nothing themselves.
        token: "Trigger builds remotely".
        readers, discoverers, builders: users with Item.READ, Item.DISCOVER, Item.BUILD; None: everybody who logs in.
        steps: commands, run until one fails; a build without any is a success.
        always: run at the end, `RESULT` in it replaced by the build's result.
        checkout: parameters -> what the git plugin adds (`GIT_COMMIT`, `GIT_BRANCH`, `GIT_URL`).
    """

    name: str
    parameters: Sequence[str] | None = FOUR
    kind: Literal["job", "folder", "multibranch"] = "job"
    disabled: bool = False
    token: str = ""
    readers: frozenset[str] | None = None
    discoverers: frozenset[str] = frozenset()
    builders: frozenset[str] | None = None
    steps: Sequence[Sequence[str]] = ()
    always: Sequence[str] = ()
    checkout: Callable[[Mapping[str, str]], Mapping[str, str]] = lambda parameters: {}
    builds: list[StubBuild] = attrs.field(factory=list)

    @property
    def path(self) -> str:
        """Where it stands below Jenkins' root."""
        return "/".join(f"job/{quote(part, safe='')}" for part in self.name.split("/"))


@attrs.define(kw_only=True, eq=False)
class StubBuild:
    """One build, running or ended."""

    number: int
    parameters: Mapping[str, str]
    item: int
    environment: Mapping[str, str]
    begun: float = attrs.field(factory=time)
    result: Result = ""
    log: str = ""
    ended: threading.Event = attrs.field(factory=threading.Event)


@attrs.define(kw_only=True, eq=False)
class StubItem:
    """One item of the queue, or one that left it."""

    id: int
    job: StubJob
    parameters: Mapping[str, str]
    due: float
    left: float | None = None
    cancelled: bool = False
    build: StubBuild | None = None
    why: str = "In the quiet period. Expires in 0.05 sec"


class StubQueue:
    """The queue, its executors and what they built. It survives a restart of the server in front of it.

    Args:
        quiet_period: seconds.
        item_lifetime: seconds that an item can be looked up after it left; Jenkins' own is 300.
        executors: builds at a time.
        environ: of each build, below what Jenkins adds.
    """

    def __init__(
        self,
        jobs: Sequence[StubJob],
        *,
        quiet_period: float = 0.05,
        item_lifetime: float = 300.0,
        executors: int = 2,
        environ: Mapping[str, str] | None = None,
        workspace: Path | None = None,
    ) -> None:
        self.jobs = {job.name: job for job in jobs}
        self.items: list[StubItem] = []
        self.root_url = ""
        self._quiet = quiet_period
        self.item_lifetime = item_lifetime
        self._executors = executors
        self._environ = dict(os.environ if environ is None else environ)
        self._workspace = workspace
        self._changed = threading.Condition()
        self._running: set[threading.Thread] = set()
        self._children: set[subprocess.Popen[bytes]] = set()
        self._held = False
        self._closed = False
        self._next_item = 1
        self._scheduler = threading.Thread(target=self._schedule, name="stub-jenkins-queue", daemon=True)
        self._scheduler.start()

    # -- what tests do -----------------------------------------------------------------------------------------------

    def hold(self) -> None:
        """Let nothing leave the queue: no executor is free."""
        with self._changed:
            self._held = True

    def release(self) -> None:
        """Let what is due leave again."""
        with self._changed:
            self._held = False
            self._changed.notify_all()

    def cancel(self, number: int) -> None:
        """Take an item out of the queue, as a person would."""
        with self._changed:
            (item,) = (item for item in self.items if item.id == number and item.left is None)
            item.left, item.cancelled = monotonic(), True

    def wait_for_builds(self, job: str, count: int, timeout: float = 60.0) -> list[StubBuild]:
        """Wait until a job has that many builds and all of them have ended; return them."""
        end = monotonic() + timeout
        with self._changed:
            found = self._changed.wait_for(lambda: len(self.jobs[job].builds) >= count, timeout)
            builds = list(self.jobs[job].builds)
        assert found, f"{job} has {len(builds)} builds, not {count}"
        for build in builds:
            assert build.ended.wait(max(0.0, end - monotonic())), f"{job} {build.number} still runs"
        return builds

    def close(self, *, abort: bool = True) -> None:
        """End the scheduler and, with `abort`, what is running; join all threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._scheduler.join(30)
        if abort:
            self.abort_builds()
        for thread in list(self._running):
            thread.join(30)

    def abort_builds(self) -> None:
        """End the commands of running builds, with what they started."""
        for child in list(self._children):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)

    # -- what the server asks ----------------------------------------------------------------------------------------

    def put(self, job: StubJob, given: Mapping[str, str], delay: float | None) -> tuple[StubItem, bool]:
        """Queue a build and return its item, and whether it joined one. What the job does not define is dropped."""
        parameters = {name: given.get(name, "") for name in job.parameters or ()}
        with self._changed:
            for item in self.items:
                if item.left is None and item.job is job and item.parameters == parameters:
                    return item, True
            due = monotonic() + (self._quiet if delay is None else delay)
            item = StubItem(id=self._next_item, job=job, parameters=parameters, due=due)
            self._next_item += 1
            self.items.append(item)
            self._changed.notify_all()
            return item, False

    def look_up(self, number: int) -> StubItem | None:
        """Return an item that is queued, or left not too long ago."""
        with self._changed:
            limit = monotonic() - self.item_lifetime
            found = (item for item in self.items if item.id == number and (item.left is None or item.left > limit))
            return next(found, None)

    def waiting(self) -> list[StubItem]:
        """Return what is queued."""
        with self._changed:
            return [item for item in self.items if item.left is None]

    # -- builds ------------------------------------------------------------------------------------------------------

    def _schedule(self) -> None:
        with self._changed:
            while not self._closed:
                self._running = {thread for thread in self._running if thread.is_alive()}
                waiting = [item for item in self.items if item.left is None]
                due = [item for item in waiting if item.due <= monotonic()]
                for item in due:
                    item.why = "Waiting for next available executor"
                if due and not self._held and len(self._running) < self._executors:
                    self._begin(due[0])
                    continue
                times = [item.due - monotonic() for item in waiting if item not in due]
                self._changed.wait(max(0.001, min(times, default=60.0)))

    def _begin(self, item: StubItem) -> None:
        job, number = item.job, len(item.job.builds) + 1
        base = job.name.rpartition("/")[2]
        root = self.root_url
        environment = {
            **self._environ,
            "JENKINS_URL": root,
            "JOB_NAME": job.name,
            "JOB_BASE_NAME": base,
            "JOB_URL": f"{root}{job.path}/",
            "BUILD_NUMBER": str(number),
            "BUILD_ID": str(number),
            "BUILD_TAG": f"jenkins-{job.name.replace('/', '-')}-{number}",
            "BUILD_URL": f"{root}{job.path}/{number}/",
            "NODE_NAME": "built-in",
            "EXECUTOR_NUMBER": "0",
            **job.checkout(item.parameters),
            **item.parameters,
        }
        build = StubBuild(number=number, parameters=item.parameters, item=item.id, environment=environment)
        job.builds.append(build)
        item.left, item.build = monotonic(), build
        thread = threading.Thread(target=self._run, args=(job, build), name=f"stub-build-{number}", daemon=True)
        self._running.add(thread)
        thread.start()
        self._changed.notify_all()

    def _run(self, job: StubJob, build: StubBuild) -> None:
        result: Result = "SUCCESS"
        for step in job.steps:
            code = self._command(step, build)
            if code:
                result = "ABORTED" if code < 0 else "FAILURE"
                break
        if job.always:
            self._command([word.replace("RESULT", result) for word in job.always], build)
        build.result = result
        build.ended.set()
        with self._changed:
            self._running.discard(threading.current_thread())
            self._changed.notify_all()

    def _command(self, argv: Sequence[str], build: StubBuild) -> int:
        child = subprocess.Popen(
            list(argv),
            env=dict(build.environment),
            cwd=self._workspace,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._children.add(child)
        with child:
            output, _ = child.communicate()
        self._children.discard(child)
        build.log += output.decode("utf-8", "replace")
        return child.returncode
