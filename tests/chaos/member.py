"""A member of a spool's group, as a process of its own user: puts records and leaves rubbish.

    python -m tests.chaos.member UID GROUP SPOOL

It is started by root and becomes that user (or stays who it is, for UID -1). Each line of its input is a JSON value:
`{"put": [[destination, id, headers], …]}` is one `put_many`, `{"rubbish": seed}` makes things under names that the
spool keeps for itself. The answer is a line: `done`, or `refused` with the reason.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from deploykit.errors import OutboxError
from deploykit.outbox import Outbox, Outgoing
from deploykit.wire.codec import ID_HEADER
from deploykit.wire.frame import Frame
from tests.chaos.become import become
from tests.chaos.options import body_of


class Member:
    """The process, seen from the run that uses it."""

    def __init__(self, uid: int, group: int, spool: Path) -> None:
        self._argv = [sys.executable, "-m", "tests.chaos.member", str(uid), str(group), str(spool)]
        self._process = self._started()

    def _started(self) -> subprocess.Popen[str]:
        return subprocess.Popen(self._argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._end()

    def _end(self) -> None:
        self._process.kill()
        self._process.communicate()

    def kill(self) -> None:
        """Kill it with SIGKILL, whatever it does at the moment; `ask` starts the next one."""
        self._process.kill()

    def ask(self, question: Mapping[str, object]) -> str | None:
        """Let it do something; return its answer, or None when it was killed meanwhile."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        answer = ""
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(question) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline().strip()
        if answer:
            return answer
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        process.stdout.close()
        process.wait()
        self._process = self._started()
        return None


def put(spool: Path, records: Sequence[tuple[str, str, Mapping[str, str]]]) -> str:
    """Queue records in one step; return `done` or `refused` and why."""
    items = [
        Outgoing(destination, Frame({**headers, ID_HEADER: identity}, body_of(identity)))
        for destination, identity, headers in records
    ]
    try:
        Outbox(spool, create=False).put_many(items)
    except OutboxError as error:
        return f"refused {error}"
    return "done"


def leave_rubbish(spool: Path, seed: int) -> str:
    """Make whatever one may under names that are the spool's; return `done`."""
    dice = random.Random(seed)
    key = f"{dice.randrange(10**19):020d}-{dice.randrange(16**8):08x}"
    own = ("dead", "bad", ".wake", ".relay.lock", f".relay-{os.geteuid()}.lock", f".tmp-{key}")
    names = [*own, f"{key}.rec", f"{key}.done", f"{key}.mine"]
    for found in sorted(spool.glob("*.rec"))[:3]:  # of somebody: marks that say all of it was sent
        names += [f"{found.stem}.done", f"{found.stem}.mine"]
    makers: tuple[Callable[[Path], object], ...] = (
        lambda path: path.symlink_to("/nowhere"),
        _directory,
        os.mkfifo,
        lambda path: path.write_bytes(b"deploykit-done 1\n" + b"x" * 100),
        lambda path: path.write_bytes(dice.randbytes(500)),
        lambda path: path.touch(),
    )
    for name in dice.sample(names, len(names)):
        with contextlib.suppress(OSError):
            dice.choice(makers)(spool / name)
    return "done"


def _directory(path: Path) -> None:
    path.mkdir(mode=0o777)
    (path / "inside").touch()


def main() -> None:
    """Become the user, and answer until the input ends."""
    uid, group, spool = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    if uid >= 0:
        become(uid, [group])
    for line in sys.stdin:
        asked = json.loads(line)
        answer = put(spool, asked["put"]) if "put" in asked else leave_rubbish(spool, asked["rubbish"])
        print(" ".join(answer.split()), flush=True)


if __name__ == "__main__":
    main()
