"""Make a large repository fast (git fast-import): so many objects, refs and files that slowness shows.

The same arguments make the same repository, so two benchmark runs compare the same thing.
"""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

_WORDS = ("node", "mirror", "release", "outbox", "relay", "broker", "origin", "branch", "commit", "deploy", "canary")


def _paths(count: int) -> list[str]:
    return [f"area{i % 10}/part{i // 10 % 25}/file{i:05d}.txt" for i in range(count)]


def _body(rng: random.Random, path: str, lines: int) -> list[str]:
    return [f"{path}:{n} {' '.join(rng.choices(_WORDS, k=6))} {rng.random():.9f}" for n in range(lines)]


def _stream(commits: int, refs: int, files: int, seed: int) -> Iterator[bytes]:
    rng = random.Random(seed)
    paths = _paths(files)
    bodies = {p: _body(rng, p, rng.randrange(5, 60)) for p in paths}
    who = "A Person <person@example.net>"
    every = max(1, commits // refs)
    branches = tags = 0

    def blob(path: str) -> bytes:
        data = "\n".join(bodies[path]).encode() + b"\n"
        return b"M 100644 inline %s\ndata %d\n%s\n" % (path.encode(), len(data), data)

    for n in range(commits):
        message = f"Change number {n}: {' '.join(rng.choices(_WORDS, k=5))}".encode()
        head = f"commit refs/heads/main\nmark :{n + 1}\ncommitter {who} {1600000000 + n * 60} +0000\n".encode()
        yield head + b"data %d\n%s\n" % (len(message), message)
        if n == 0:
            for path in paths:
                yield blob(path)
        else:
            area = rng.randrange(10)
            for path in rng.sample(paths, 3):
                chosen = path if rng.random() < 0.4 else path.replace(path.split("/")[0], f"area{area}", 1)
                target = chosen if chosen in bodies else path
                body = bodies[target]
                body[rng.randrange(len(body))] = f"changed in {n} {rng.random():.9f}"
                yield blob(target)
        yield b"\n"
        if n % every == every - 1:
            if rng.random() < 0.5:
                branches += 1
                yield b"reset refs/heads/topic/b%05d\nfrom :%d\n\n" % (branches, n + 1)
            else:
                tags += 1
                text = b"release %d" % tags
                yield b"tag v1.%d\nfrom :%d\ntagger %s %d +0000\ndata %d\n%s\n" % (
                    tags, n + 1, who.encode(), 1600000000 + n * 60, len(text), text,
                )  # fmt: skip
    yield b"done\n"


def make_big_repository(
    path: Path, *, commits: int = 22_000, refs: int = 2_000, files: int = 5_000, seed: int = 5
) -> Path:
    """Write a bare repository to `path` and pack it as a server would. About ten objects per commit."""
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(path)], check=True)
    importer = subprocess.Popen(
        ["git", "-C", str(path), "fast-import", "--quiet", "--done", "--depth=50"], stdin=subprocess.PIPE
    )
    assert importer.stdin is not None
    with importer.stdin as pipe:
        for piece in _stream(commits, refs, files, seed):
            pipe.write(piece)
    if importer.wait() != 0:
        raise RuntimeError("git fast-import failed")
    subprocess.run(["git", "-C", str(path), "repack", "-a", "-d", "-q", "-f", "--depth=50", "--window=10"], check=True)
    subprocess.run(["git", "-C", str(path), "pack-refs", "--all"], check=True)
    return path
