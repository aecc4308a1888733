"""What the git hook costs a push: interleaved rounds, medians, ratios within one run.

    python tests/benchmarks/bench_hooks.py [--rounds 9] [--refs 2000]

Wall time of the hook for a one-commit push with the relay's broker up and down, against a bare start of the same
interpreter; the whole `git push` with and without the hook; and many refs in one push, with and without, and right
behind another such push, whose events a relay sends meanwhile. The relay is a process of its own, that gives way
(`--background`); the broker is one of this process, and takes its share of the same processors.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from deploykit.broker.server import EmbeddedBroker
from deploykit.hooking import installer
from deploykit.outbox import Outbox

ENV = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1"}
WHO = ("-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main")


def git(*words: str, cwd: Path, data: bytes = b"") -> str:
    """Run git."""
    done = subprocess.run(["git", *WHO, *words], cwd=cwd, env=ENV, input=data, capture_output=True, check=True)
    return done.stdout.decode().strip()


def seconds(act: Callable[[], object]) -> float:
    """How long one call takes."""
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


class Bench:
    """An origin with the hook, one without, and a work tree that pushes to both."""

    def __init__(self, root: Path) -> None:
        self.root, self.spool, self.work = root, root / "spool", root / "work"
        self.origins = {name: root / f"{name}.git" for name in ("with", "without")}
        Outbox(self.spool)
        self.work.mkdir()
        git("init", "-q", cwd=self.work)
        git("commit", "-q", "--allow-empty", "-m", "base", cwd=self.work)
        for name, path in self.origins.items():
            self.make(name, path)
        git("commit", "-q", "--allow-empty", "-m", "one commit", cwd=self.work)
        git("push", "-q", str(self.origins["with"]), "HEAD:refs/heads/topic", cwd=self.work)
        old, new = git("rev-parse", "HEAD~1", "HEAD", cwd=self.work).split()
        self.line = f"{old} {new} refs/heads/main\n".encode()

    def make(self, name: str, path: Path) -> Path:
        """Make an origin with the hook or without, with one commit in it."""
        git("init", "-q", "--bare", str(path), cwd=self.root)
        git("push", "-q", str(path), "HEAD:refs/heads/main", cwd=self.work)
        (path / "deploykit.toml").write_text(f'spool = "{self.spool}"\nrelay = ""\n')
        if name == "with":
            installer.install(path)
        return path

    def hook(self) -> None:
        """The hook alone, as git would run it for one commit."""
        origin = self.origins["with"]
        hook = [str(origin / "hooks" / "post-receive")]
        subprocess.run(hook, cwd=origin, env=ENV, input=self.line, capture_output=True, check=True)

    def bare(self) -> None:
        """The interpreter alone."""
        subprocess.run([sys.executable, "-c", "pass"], env=ENV, input=b"", capture_output=True, check=True)

    def settle(self) -> None:
        """Wait until the relay has sent all: its work on the last measurement is none of the next one's."""
        while any(self.spool.glob("*.rec")):
            time.sleep(0.05)

    @contextlib.contextmanager
    def relay(self, address: str) -> Iterator[None]:
        """A relay at work on the spool."""
        settings = self.root / "relay.toml"
        broker = f'[broker]\naddress = "{address}"\nbackoff_max = 0.2\n'
        settings.write_text(f'{broker}[outbox]\npath = "{self.spool}"\n[log]\nlevel = "error"\n')
        settings.chmod(0o600)
        command = [sys.executable, "-m", "deploykit", "relay", "--background", "--config", str(settings)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            assert process.stdout is not None
            assert process.stdout.readline().startswith(b"ready")
            try:
                yield
            finally:
                process.terminate()

    def push(self, name: str) -> None:
        """A new commit to one of the origins."""
        git("push", "-q", str(self.origins[name]), "HEAD:refs/heads/main", cwd=self.work)

    def push_refs(self, origin: Path, refs: int) -> None:
        """Many refs to an origin."""
        git("push", "-q", str(origin), *(f"HEAD:refs/heads/b{i}" for i in range(refs)), cwd=self.work)


def main() -> None:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--refs", type=int, default=2000)
    asked = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="deploykit-bench-"))
    took: dict[str, list[float]] = {}
    try:
        run(Bench(root), max(7, asked.rounds), asked.refs, took)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    report(took, asked.refs)


def run(bench: Bench, rounds: int, refs: int, took: dict[str, list[float]]) -> None:
    """Measure everything once in each round, so that other load weighs on all of it."""

    def note(name: str, act: Callable[[], object]) -> None:
        took.setdefault(name, []).append(seconds(act))

    with EmbeddedBroker() as broker, bench.relay(broker.address):
        for number in range(rounds + 1):
            if number == 1:
                took.clear()  # the first round only warms caches
            bench.settle()
            note("bare", bench.bare)
            note("hook, broker up", bench.hook)
            broker.kill()
            note("hook, broker down", bench.hook)
            broker.restart()
            for name in ("without", "with"):
                git("commit", "-q", "--allow-empty", "-m", f"r{number}", cwd=bench.work)
                bench.settle()
                note(f"push {name}", partial(bench.push, name))
            # New origins each time: a push takes the longer the more refs are there already.
            cases = ("many without", "many with", "many, relay busy")
            fresh = {name: bench.make(name.split()[-1], bench.root / f"{name}{number}") for name in cases[:2]}
            fresh[cases[2]] = bench.make("with", bench.root / f"busy{number}")
            for name in cases:
                if name != cases[2]:
                    bench.settle()
                note(name, partial(bench.push_refs, fresh[name], refs))
            for path in fresh.values():
                shutil.rmtree(path)


def report(took: dict[str, list[float]], refs: int) -> None:
    """Print medians and ratios."""
    median = {name: statistics.median(times) for name, times in took.items()}
    for name, value in median.items():
        print(f"{name:20} {value * 1000:8.1f} ms   (of {len(took[name])} rounds)")
    rows = (
        ("hook up / bare start", median["hook, broker up"] / median["bare"], "at most 8, aim 5"),
        ("hook down / up", median["hook, broker down"] / median["hook, broker up"], "at most 1.1"),
        ("git push with / without", median["push with"] / median["push without"], ""),
        (f"{refs} refs with / without", median["many with"] / median["many without"], "at most 1.5"),
        ("same, while a relay sends", median["many, relay busy"] / median["many without"], "at most 1.5"),
    )
    for name, ratio, limit in rows:
        print(f"{name:26} {ratio:5.2f} x   {limit}")


if __name__ == "__main__":
    os.umask(0o022)
    main()
