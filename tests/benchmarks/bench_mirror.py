"""Mirrors against git, on a repository large enough to show a difference: `python tests/benchmarks/bench_mirror.py`.

Rules: our default public API with every check on; git as it comes; both fetch from the same `git daemon` on loopback,
in turn, and who goes first changes every round; medians of at least 7 rounds. Prints both medians and their ratio.

    --where DIR      where mirrors live (again for another file system); default /dev/shm and /var/tmp
    --repo PATH      a real repository instead of the generated one (241,000 objects, 2,000 refs, 5,000 files)
    --rounds N       default 7
    --only WORD      only questions whose name holds WORD
    --check          exit 1 when a ratio is above its limit
"""

from __future__ import annotations

import argparse
import gc
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import attrs

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from deploykit.checkouts import Checkouts
from deploykit.mirror import Mirror, RefChange
from deploykit.mirror.pool import MirrorPool
from deploykit.names import ObjectId, RefName
from deploykit.settings import CheckoutSettings, MirrorSettings
from tests.support.bigrepo import make_big_repository
from tests.support.origins import GitRepo, git_daemon, git_env, run_git

MAIN = RefName("refs/heads/main")
SETTINGS = MirrorSettings()

#: What a checkout needs to be told for a repository that was not made for it: nothing is refused, all is written.
_AS_STORED: dict[str, Any] = {
    "symlinks": "any",
    "submodules": "skip",
    "raw_attributes": ("filter", "eol", "ident", "working-tree-encoding"),
}

_FIRST = """
import sys
from deploykit.mirror import Mirror
with Mirror.open(sys.argv[2], sys.argv[1]) as mirror:
    mirror.fetch(deadline=3600)
"""


@attrs.frozen(kw_only=True)
class Line:
    """One comparison."""

    name: str
    ours: list[float]
    git: list[float]
    limit: float
    unit: str = "ms"

    @property
    def ratio(self) -> float:
        return statistics.median(self.ours) / statistics.median(self.git)

    def __str__(self) -> str:
        ours, git = statistics.median(self.ours), statistics.median(self.git)
        verdict = "ok" if self.ratio <= self.limit else "OVER"
        spread = f"{min(self.ours):.0f}-{max(self.ours):.0f} / {min(self.git):.0f}-{max(self.git):.0f}"
        return (
            f"{self.name:42} ours {ours:9.1f}  git {git:9.1f} {self.unit}  ratio {self.ratio:5.2f} "
            f"(limit {self.limit:g}) {verdict:4}  [{spread}, n={len(self.ours)}]"
        )


class Bench:
    """The scene: an origin behind a daemon, git's mirror and ours."""

    def __init__(self, home: Path, origin: GitRepo, url: str, base: str, rounds: int, *, real: bool = False) -> None:
        self.real = real
        self.home, self.origin, self.url, self.base, self.rounds = home, origin, url, base, rounds
        self.branch = origin.git("symbolic-ref", "HEAD")
        self.git_mirror = home / "git.git"
        self.our_mirror = home / "ours.git"

    def in_turn(
        self, ours: Callable[[], float], git: Callable[[], float], before: Callable[[], None]
    ) -> tuple[list[float], list[float]]:
        """Time both, interleaved; `before` makes each round's change at the origin."""
        mine: list[float] = []
        theirs: list[float] = []
        for n in range(self.rounds + 1):
            before()
            for run, times in ((ours, mine), (git, theirs)) if n % 2 else ((git, theirs), (ours, mine)):
                gc.collect()
                took = run()
                if n:  # the first round warms both up
                    times.append(took)
        return mine, theirs

    def git_fetch(self) -> float:
        return timed(lambda: run_quietly("git", "-C", str(self.git_mirror), "fetch", "-q", "--prune"))

    def push(self, files: int = 3) -> RefChange:
        """One new commit at the origin, as a push would leave it."""
        old = self.origin.tip(self.branch)
        env = {"GIT_INDEX_FILE": str(self.home / "index")}
        path = self.origin.path
        run_git(path, "read-tree", old, env=env)
        names = run_git(path, "ls-files", env=env).splitlines()
        lines = []
        for name in names[:: max(1, len(names) // files)][:files]:
            blob = self.origin.blob(
                os.urandom(8).hex().encode()
                + self.origin.git("cat-file", "blob", f"{old}:{name}").encode("utf-8", "surrogateescape")
            )
            lines.append(f"100644 {blob}\t{name}")
        run_git(path, "update-index", "--index-info", data="\n".join(lines).encode() + b"\n", env=env)
        new = self.origin.commit(tree=run_git(path, "write-tree", env=env), parents=(old,), branch=None)
        self.origin.git("update-ref", self.branch, new)
        return RefChange(RefName(self.branch), ObjectId(old), ObjectId(new))

    # -- questions ---------------------------------------------------------------------------------------------------

    def first(self) -> Iterator[Line]:
        """The first mirror: time, and the largest process."""
        peaks: dict[str, list[float]] = {"ours": [], "git": []}

        def ours() -> float:
            shutil.rmtree(self.our_mirror, ignore_errors=True)
            took, peak = measured(sys.executable, "-c", _FIRST, self.url, str(self.our_mirror))
            peaks["ours"].append(peak)
            return took

        def git() -> float:
            shutil.rmtree(self.git_mirror, ignore_errors=True)
            took, peak = measured("git", "clone", "-q", "--mirror", self.url, str(self.git_mirror))
            peaks["git"].append(peak)
            return took

        mine, theirs = self.in_turn(ours, git, lambda: None)
        yield Line(name="first mirror", ours=mine, git=theirs, limit=2.5)
        yield Line(name="first mirror, peak memory", ours=peaks["ours"], git=peaks["git"], limit=3.0, unit="MB")

    def nothing_new(self) -> Iterator[Line]:
        """A fetch that finds nothing."""
        mirror = Mirror.open(self.our_mirror, self.url, SETTINGS)

        def ours() -> float:
            return timed(lambda: expect(not mirror.fetch().changes))

        mine, theirs = self.in_turn(ours, self.git_fetch, lambda: None)
        yield Line(name="nothing new", ours=mine, git=theirs, limit=0.5)

    def one_commit(self) -> Iterator[Line]:
        """One new commit: told by a message, and found without one."""
        mirror = Mirror.open(self.our_mirror, self.url, SETTINGS)
        told: list[RefChange] = []

        def with_message() -> float:
            return timed(lambda: expect(mirror.fetch(told[-1]).confirmed is True))

        def without() -> float:
            return timed(lambda: expect(len(mirror.fetch().changes) == 1))

        for name, ours in (("one new commit, told", with_message), ("one new commit, found", without)):
            mine, theirs = self.in_turn(ours, self.git_fetch, lambda: told.append(self.push()))
            yield Line(name=name, ours=mine, git=theirs, limit=1.3)

    def hundred(self) -> Iterator[Line]:
        """100 repositories changed at once."""
        count = 100
        root = self.origin.path.parent / "many"
        repos = [GitRepo.make(root / f"r{n}.git") for n in range(count)]
        urls = [f"{self.base}/many/r{n}.git" for n in range(count)]
        for n, repo in enumerate(repos):
            repo.commit({f"f{i}": os.urandom(100) for i in range(5)})
            run_quietly("git", "clone", "-q", "--mirror", urls[n], str(self.home / f"g{n}.git"))
        told: list[RefChange] = []
        with MirrorPool(workers=4, every=3600) as pool:
            for n in range(count):
                pool.add(f"m{n}", Mirror.open(self.home / f"o{n}.git", urls[n]), at_once=False)
            for answer in [pool.request(f"m{n}") for n in range(count)]:
                answer.result(60)

            def push() -> None:
                told.clear()
                for repo in repos:
                    old = repo.tip(MAIN)
                    told.append(RefChange(MAIN, ObjectId(old), ObjectId(repo.commit({"f0": os.urandom(100)}))))

            def ours() -> float:
                def run() -> None:
                    for answer in [pool.request(f"m{n}", told[n]) for n in range(count)]:
                        expect(answer.result(60).confirmed is True)

                return timed(run)

            def git() -> float:
                def run() -> None:
                    for n in range(count):
                        run_quietly("git", "-C", str(self.home / f"g{n}.git"), "fetch", "-q", "--prune")

                return timed(run)

            mine, theirs = self.in_turn(ours, git, push)
        yield Line(name="100 repositories changed at once", ours=mine, git=theirs, limit=1.0)

    def checkout(self) -> Iterator[Line]:
        """A checkout brought on by a 10-file change, against git's fresh one of the same tree."""
        mirror = Mirror.open(self.our_mirror, self.url, SETTINGS)
        settings = CheckoutSettings(mode="branch", branch=self.branch[11:], target=self.home / "site", grace=0)
        if self.real:
            settings = attrs.evolve(settings, **_AS_STORED)
        checkouts = Checkouts(settings)

        def push() -> None:
            self.push(files=10)
            mirror.fetch()
            self.git_fetch()

        def ours() -> float:
            return timed(lambda: expect(len(checkouts.update(mirror).changed) == 1))

        def git() -> float:
            fresh = self.home / "fresh"
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir()
            where = ["git", f"--git-dir={self.git_mirror}", f"--work-tree={fresh}"]
            (self.git_mirror / "index").unlink(missing_ok=True)
            return timed(lambda: run_quietly(*where, "checkout", "-q", "-f", self.branch[11:]))

        push()
        checkouts.update(mirror)
        push()
        checkouts.update(mirror)
        mine, theirs = self.in_turn(ours, git, push)
        yield Line(name="checkout, 10 files changed", ours=mine, git=theirs, limit=0.25)


def expect(true: bool) -> None:
    """A benchmark of something that did not happen is worth nothing."""
    if not true:
        raise SystemExit("the fetch did not do what is measured")


def timed(run: Callable[[], object]) -> float:
    """Milliseconds."""
    started = time.perf_counter()
    run()
    return (time.perf_counter() - started) * 1000


def run_quietly(*argv: str) -> None:
    subprocess.run(argv, check=True, env=git_env(), stdout=subprocess.DEVNULL)


def measured(*argv: str) -> tuple[float, float]:
    """Milliseconds, and the largest resident set (MB) among the process and its children."""
    started = time.perf_counter()
    pid = os.posix_spawnp(argv[0], argv, git_env(PYTHONPATH=str(Path(__file__).resolve().parents[2])))
    _, status, usage = os.wait4(pid, 0)
    took = (time.perf_counter() - started) * 1000
    expect(status == 0)
    return took, usage.ru_maxrss / 1024


@contextmanager
def scene(where: Path, repo: Path | None, rounds: int) -> Iterator[Bench]:
    """Origin on the same file system as the mirrors, a daemon in front of it."""
    home = Path(tempfile.mkdtemp(prefix="bench-mirror-", dir=where))
    try:
        served = home / "served"
        served.mkdir()
        origin = GitRepo(served / "origin.git")
        if repo is None:
            make_big_repository(origin.path)
        else:
            run_quietly("git", "clone", "-q", "--mirror", "--no-hardlinks", str(repo), str(origin.path))
        with git_daemon(served) as server:
            yield Bench(home, origin, server.url("origin.git"), server.base, rounds, real=repo is not None)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def describe(origin: GitRepo) -> str:
    told = dict(line.split(": ") for line in origin.git("count-objects", "-v").splitlines())
    refs = len(origin.git("for-each-ref", "--format=x").splitlines())
    files = len(origin.git("ls-tree", "-r", "--name-only", "HEAD").splitlines())
    return f"{told['in-pack']} objects, {int(told['size-pack']) / 1024:.0f} MB packed, {refs} refs, {files} files"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--where", type=Path, action="append")
    parser.add_argument("--repo", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default="")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    over = False
    for where in options.where or [Path("/dev/shm"), Path("/var/tmp")]:
        with scene(where, options.repo, options.rounds) as bench, suppress(KeyboardInterrupt):
            load = os.getloadavg()[0]
            print(f"{where}: {describe(bench.origin)}; load {load:.1f} on {os.cpu_count()} cores", flush=True)
            if options.only and "first" not in options.only:
                run_quietly("git", "clone", "-q", "--mirror", bench.url, str(bench.git_mirror))
                Mirror.open(bench.our_mirror, bench.url).fetch(deadline=3600)
            for question in (bench.first, bench.nothing_new, bench.one_commit, bench.checkout, bench.hundred):
                if options.only and options.only not in question.__name__:
                    continue
                for line in question():
                    print(line, flush=True)
                    over |= line.ratio > line.limit
    return 1 if over and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
