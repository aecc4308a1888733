"""A site of three repositories beside a site of one with the same files, every check and durability on.

    python tests/benchmarks/bench_parts.py [--rounds 7] [--files 5000] [--where DIR ...] [--check]

Per round, one after the other: a first deploy into a new site of either kind; a deploy of a commit that changes one
file, into a site of either kind with a spare release, pruning included. Medians are compared, and the peak memory of
five deploys in a process of their own.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from deploykit.git.repository import Repository
from deploykit.names import RepoName
from deploykit.release import Allowances, DeployResult, PartRequest, PartSource, Runner, Site
from deploykit.settings import SiteSettings
from tests.support.bigrepo import make_big_repository

PARTS = tuple(RepoName(name) for name in ("app", "theme", "docs"))
MAIN = "refs/heads/main"
#: Deploys until there is a spare release.
FIRST = 4
_ANY = Allowances(moved=True)
#: Rounds follow each other within the grace, in which a release that was live is left alone; deploys in life do not.
_SETTINGS = SiteSettings(keep=2, grace=0)
TIME_MAX, MEMORY_MAX = 1.25, 1.25


def git(where: Path, *words: str, data: bytes = b"") -> str:
    """Run git in a repository, and return what it prints."""
    who = {f"GIT_{each}_{what}": "b@example.net" for each in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    done = subprocess.run(
        ["git", "-C", str(where), *words], input=data, check=True, capture_output=True, env={**os.environ, **who}
    )
    return done.stdout.decode().strip()


def change_one(where: Path, name: str, commits: int) -> list[str]:
    """Add commits to main that change one file each, and return them, the one before them first."""
    stream = b""
    for n in range(commits):
        stream += b"commit %s\ncommitter B <b@example.net> %d +0000\ndata 0\n" % (MAIN.encode(), 1_700_000_000 + n)
        stream += b"from %s^0\n" % MAIN.encode() if n == 0 else b""
        body = b"changed in %d\n" % n * 50
        stream += b"M 100644 inline %s\ndata %d\n%s\n" % (name.encode(), len(body), body)
    git(where, "fast-import", "--quiet", data=stream)
    git(where, "repack", "-a", "-d", "-q")
    return git(where, "rev-list", f"--max-count={commits + 1}", "main").split()[::-1]


def make_repositories(base: Path, files: int, commits: int) -> tuple[list[str], list[str]]:
    """Make the three repositories, and one with the same files; return the newest commits of the first, and of that."""
    for seed, part in enumerate(PARTS):
        each = files // len(PARTS)
        make_big_repository(base / part, commits=max(100, each // 25), refs=10, files=each, seed=seed)
    whole = base / "whole"
    git(base, "init", "-q", "--bare", str(whole))
    parents: list[str] = []
    rows = ""
    for part in PARTS:
        git(whole, "fetch", "-q", str(base / part), "main")
        parents += ["-p", git(whole, "rev-parse", "FETCH_HEAD")]
        rows += f"040000 tree {git(whole, 'rev-parse', parents[-1] + '^{tree}')}\t{part}\n"
    tree = git(whole, "mktree", data=rows.encode())
    git(whole, "update-ref", MAIN, git(whole, "commit-tree", *parents, "-m", "all of them", tree))
    first = PARTS[0]
    name = git(base / first, "ls-tree", "-r", "--name-only", "main").splitlines()[0]
    for part in PARTS[1:]:
        git(base / part, "repack", "-a", "-d", "-q")
    return change_one(base / first, name, commits), change_one(whole, f"{first}/{name}", commits)


def deploy_parts(site: Path, base: Path, commit: str) -> DeployResult:
    """Deploy the three, of which the first has moved."""
    with ExitStack() as stack:
        opened = {part: stack.enter_context(Repository(base / part)) for part in PARTS}
        source = PartSource({part: str(part) for part in PARTS}, opened.__getitem__)
        parts = {part: PartRequest(ref=MAIN) for part in PARTS} | {PARTS[0]: PartRequest(ref=MAIN, commit=commit)}
        return Runner(Site(site, _SETTINGS)).deploy(source, parts=parts, allow=_ANY).check()


def deploy_whole(site: Path, base: Path, commit: str) -> DeployResult:
    """Deploy the one with the same files."""
    with Repository(base / "whole") as source:
        return Runner(Site(site, _SETTINGS)).deploy(source, MAIN, commit, allow=_ANY).check()


KINDS: dict[str, Callable[[Path, Path, str], DeployResult]] = {"parts": deploy_parts, "whole": deploy_whole}


def said(result: DeployResult) -> str:
    """Return what the export did."""
    return next(step.output for step in result.steps if step.name == "export")


def timed(deploy: Callable[[Path, Path, str], DeployResult], *words: Path | str) -> tuple[float, str]:
    """Return seconds of wall time, and what the export did."""
    site, base, commit = words
    start = time.perf_counter()
    done = deploy(Path(site), Path(base), str(commit))
    return time.perf_counter() - start, said(done)


def measure(repos: Path, commits: dict[str, list[str]], base: Path, rounds: int) -> dict[str, float]:
    """Run the rounds on one file system and return medians in seconds."""
    times: dict[str, list[float]] = {f"{what} {kind}": [] for what in ("fresh", "recycled") for kind in KINDS}
    for kind, deploy in KINDS.items():
        for n in range(FIRST):
            deploy(base / kind, repos, commits[kind][n])
    for n in range(rounds):
        for kind, deploy in list(KINDS.items())[:: 1 if n % 2 else -1]:
            commit = commits[kind][n + FIRST]
            times[f"fresh {kind}"].append(timed(deploy, base / f"fresh-{kind}-{n}", repos, commit)[0])
            seconds, export = timed(deploy, base / kind, repos, commit)
            assert "recycled: 1 files written, 0 removed" in export, export
            times[f"recycled {kind}"].append(seconds)
        for kind in KINDS:
            shutil.rmtree(base / f"fresh-{kind}-{n}")
    return {name: statistics.median(values) for name, values in times.items()}


def memory(kind: str, repos: Path, commits: list[str], base: Path) -> float:
    """Return the peak memory of a fresh and four recycled deploys in a process of its own, in MB (VmHWM)."""
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "from tests.benchmarks import bench_parts as b\n"
        "for c in sys.argv[5].split(','): b.KINDS[sys.argv[2]](Path(sys.argv[3]), Path(sys.argv[4]), c)\n"
        "status = dict(line.split(':', 1) for line in Path('/proc/self/status').read_text().splitlines())\n"
        "print(int(status['VmHWM'].split()[0]) / 1024)"
    )
    words = [str(Path(__file__).parents[2]), kind, str(base / f"memory-{kind}"), str(repos), ",".join(commits)]
    done = subprocess.run([sys.executable, "-c", code, *words], check=True, capture_output=True, text=True)
    return float(done.stdout)


def line(name: str, what: str, parts: float, whole: float, limit: float, unit: str) -> bool:
    """Print one comparison, and return whether its limit holds."""
    ratio = parts / whole
    good = ratio <= limit
    print(
        f"{name:<10} {what:<9} three {parts:7.1f} {unit}  one {whole:7.1f} {unit}  {ratio:5.2f} x (<= {limit})  "
        f"{'ok' if good else 'MISSED'}",
        flush=True,
    )
    return good


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--files", type=int, default=5000)
    parser.add_argument("--where", type=Path, nargs="*", default=[Path("/dev/shm"), Path("/var/tmp")])
    parser.add_argument("--check", action="store_true", help="Fail above a limit.")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    good, rows = True, []
    with tempfile.TemporaryDirectory(prefix="bench-parts-", dir="/var/tmp") as where:
        repos = Path(where)
        of_parts, of_whole = make_repositories(repos, options.files, options.rounds + FIRST)
        commits = {"parts": of_parts, "whole": of_whole}
        for place in options.where:
            with tempfile.TemporaryDirectory(prefix="bench-parts-", dir=place) as base:
                found = measure(repos, commits, Path(base), options.rounds)
                rows.append({"where": str(place), **found})
                for what in ("fresh", "recycled"):
                    parts, whole = found[f"{what} parts"] * 1000, found[f"{what} whole"] * 1000
                    good &= line(str(place), what, parts, whole, TIME_MAX, "ms")
        with tempfile.TemporaryDirectory(prefix="bench-parts-", dir=options.where[0]) as base:
            peaks = {kind: memory(kind, repos, commits[kind][: FIRST + 1], Path(base)) for kind in KINDS}
        good &= line("", "memory", peaks["parts"], peaks["whole"], MEMORY_MAX, "MB")
        rows.append({f"{kind} MB": peak for kind, peak in peaks.items()})
    print(f"{options.files} files, {options.rounds} rounds, interleaved, medians")
    if options.json:
        print(json.dumps(rows))
    return 0 if good or not options.check else 1


if __name__ == "__main__":
    sys.exit(main())
