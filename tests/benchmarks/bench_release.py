"""Deploys against what git and tar would need for the same, default public API, every check and durability on.

    python tests/benchmarks/bench_release.py [--rounds 7] [--files 5000] [--where DIR ...] [--growth]

Per round, one after the other: `git archive | tar -x` and `rm -rf` of an old release; a first deploy into a new site;
a deploy of a commit that changes ten files into a site with a spare release, pruning included. Medians are compared.
Nothing the competition writes is made to last; ours is.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

sys.path.insert(0, str(Path(__file__).parents[2]))

from deploykit.git.repository import Repository
from deploykit.release import Allowances, Runner, Site
from deploykit.settings import SiteSettings
from tests.support.bigrepo import make_big_repository

P = ParamSpec("P")
R = TypeVar("R")

CHANGED = 10
_ANY = Allowances(moved=True)
FRESH_MAX, RECYCLED_MAX, MEMORY_MAX = 2.0, 0.2, 150.0


def make_repository(where: Path, files: int, commits: int) -> list[str]:
    """A repository with some history, and at its end a row of commits that change ten files each."""
    make_big_repository(where, commits=max(200, files // 25), refs=20, files=files, seed=7)

    def git(*words: str, data: bytes = b"") -> str:
        return subprocess.run(
            ["git", "-C", str(where), *words], input=data, check=True, capture_output=True
        ).stdout.decode()

    names = git("ls-tree", "-r", "--name-only", "main").splitlines()
    stream = b""
    for n in range(commits):
        message = b"bench %d" % n
        stream += b"commit refs/heads/main\ncommitter B <b@example.net> %d +0000\ndata %d\n%s\n" % (
            1_700_000_000 + n,
            len(message),
            message,
        )
        stream += b"from refs/heads/main^0\n" if n == 0 else b""
        for k in range(CHANGED):
            body = b"changed in %d %d\n" % (n, k) * 50
            name = names[(n * 997 + k * 131) % len(names)].encode()
            stream += b"M 100644 inline %s\ndata %d\n%s\n" % (name, len(body), body)
    git("fast-import", "--quiet", data=stream)
    git("repack", "-a", "-d", "-q")
    return git("rev-list", f"--max-count={commits}", "main").split()[::-1]


def timed(act: Callable[P, R], *args: P.args, **more: P.kwargs) -> tuple[float, R]:
    """Seconds of wall time, and what came back."""
    start = time.perf_counter()
    done = act(*args, **more)
    return time.perf_counter() - start, done


def archive(repo: Path, commit: str, target: Path) -> None:
    """The competition."""
    target.mkdir()
    with subprocess.Popen(["git", "-C", str(repo), "archive", commit], stdout=subprocess.PIPE) as packing:
        subprocess.run(["tar", "-x", "-C", str(target)], stdin=packing.stdout, check=True)


def deploy(site: Path, repo: Path, commit: str, settings: SiteSettings) -> str:
    """Ours. Returns what the export said."""
    with Repository(repo) as source:
        result = Runner(Site(site, settings)).deploy(source, "refs/heads/main", commit, allow=_ANY).check()
    return next(s.output for s in result.steps if s.name == "export")


def measure(repo: Path, commits: list[str], base: Path, rounds: int) -> dict[str, float]:
    """Run the rounds on one file system and return medians in seconds."""
    base.mkdir(parents=True)
    # Rounds follow each other within the grace, in which a release that was live is left alone; deploys in life do not.
    fresh_settings, settings = SiteSettings(keep=2, grace=0), SiteSettings(keep=2, grace=0)
    times: dict[str, list[float]] = {"archive": [], "rm": [], "fresh": [], "recycled": []}
    for n in range(4):
        deploy(base / "site", repo, commits[n], settings)
    archive(repo, commits[0], base / "old-0")
    for n in range(rounds):
        commit, old, new = commits[n + 4], base / f"old-{n}", base / f"old-{n + 1}"
        times["archive"].append(timed(archive, repo, commit, new)[0])
        times["fresh"].append(timed(deploy, base / f"fresh-{n}", repo, commit, fresh_settings)[0])
        seconds, said = timed(deploy, base / "site", repo, commit, settings)
        assert "recycled" in said, said
        times["recycled"].append(seconds)
        times["rm"].append(timed(subprocess.run, ["rm", "-rf", str(old)], check=True)[0])
        shutil.rmtree(base / f"fresh-{n}")
    return {name: statistics.median(values) for name, values in times.items()}


def memory(repo: Path, commit: str, base: Path) -> float:
    """Peak memory of a fresh and four recycled deploys in a process of its own, in MB.

    As the kernel tells it of this very program (VmHWM): ru_maxrss counts the process that started it as well.
    """
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "from tests.benchmarks import bench_release as b\n"
        "settings = b.SiteSettings(keep=1, grace=0)\n"
        "for c in sys.argv[4].split(','): b.deploy(Path(sys.argv[2]), Path(sys.argv[3]), c, settings)\n"
        "told = dict(line.split(':', 1) for line in Path('/proc/self/status').read_text().splitlines())\n"
        "print(int(told['VmHWM'].split()[0]) / 1024)"
    )
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", code, root, str(base), str(repo), commit], check=True, capture_output=True, text=True
    )
    return float(done.stdout)


def report(name: str, files: int, found: dict[str, float]) -> bool:
    """Print one line and tell whether the limits hold."""
    fresh = found["fresh"] / found["archive"]
    recycled = found["recycled"] / (found["archive"] + found["rm"])
    good = fresh <= FRESH_MAX and recycled <= RECYCLED_MAX
    print(
        f"{name:<10} {files:>6} files  archive|tar {found['archive'] * 1000:7.0f} ms  rm {found['rm'] * 1000:6.0f} ms  "
        f"fresh {found['fresh'] * 1000:7.0f} ms = {fresh:5.2f} x (<= {FRESH_MAX})  "
        f"recycled {found['recycled'] * 1000:6.0f} ms = {recycled:5.3f} x (<= {RECYCLED_MAX})  "
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
    parser.add_argument("--growth", action="store_true", help="Also with 500 and 50,000 files.")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    good = True
    rows = []
    sizes = [options.files] if not options.growth else sorted({500, options.files, 50_000})
    with tempfile.TemporaryDirectory(prefix="bench-release-", dir="/var/tmp") as where:
        for files in sizes:
            repo = Path(where) / f"repo-{files}"
            commits = make_repository(repo, files, options.rounds + 8)
            for place in options.where:
                base = Path(tempfile.mkdtemp(prefix="bench-release-", dir=place))
                try:
                    found = measure(repo, commits, base / "run", options.rounds)
                    good &= report(str(place), files, found)
                    rows.append({"where": str(place), "files": files, **found})
                finally:
                    shutil.rmtree(base)
            base = Path(tempfile.mkdtemp(prefix="bench-release-", dir=options.where[0]))
            try:
                peak = memory(repo, ",".join(commits[:5]), base / "site")
            finally:
                shutil.rmtree(base)
            print(f"peak memory {files:>6} files  {peak:6.1f} MB (<= {MEMORY_MAX})", flush=True)
            good &= peak <= MEMORY_MAX
            rows.append({"files": files, "peak_mb": peak})
    own = resource.getrusage(resource.RUSAGE_SELF)
    print(f"{options.rounds} rounds, interleaved, medians; cpu {own.ru_utime + own.ru_stime:.1f} s")
    if options.json:
        print(json.dumps(rows))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
