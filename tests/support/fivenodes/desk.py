"""Who rolls out to five nodes: the real command line, as a process that can be killed, here or on another machine."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

import attrs

from deploykit.config import load_settings
from deploykit.errors import UsageError
from deploykit.fleet.plan import Target
from deploykit.operations.rolloutstore import StoredRollout, ask_rollout, read_rollout
from deploykit.settings import Settings
from tests.brokers.process import current_run
from tests.brokers.reaper import MARK_VARIABLE
from tests.support.cli import command
from tests.support.wait import wait_until


@attrs.frozen
class Done:
    """How a command line ended: its exit code, and all that it printed."""

    code: int
    output: str


class Desk:
    """One command line at a time.

    Args:
        root: where its log and its list of nodes are.
        config: its settings file.
        nodes: all nodes.
        people: the keys of those who approve rollouts; the desk signs with them as they would.
    """

    def __init__(self, root: Path, config: Path, nodes: Iterable[str], people: Sequence[Path] = ()) -> None:
        self._root, self._config = root, config
        self.home: Settings = load_settings(config)
        self._settings = config.read_text()
        self._moves = 0
        self._log = root / "desk.log"
        self._list = root / "nodes.txt"
        self._list.write_text("".join(f"{node}\n" for node in nodes))
        self._people = tuple(people)
        self._process: subprocess.Popen[bytes] | None = None

    def words(self, target: Target, *options: str, approved: bool = True) -> list[str]:
        """Return the words of the command that rolls a tag out to all nodes; `approved` by all people there are."""
        words = ["deploy", "shop", "--ref", target.name, "--nodes", str(self._list), "--timeout", "300"]
        if approved and "--propose" not in options and self._people:
            options = (*options, "--yes", *(word for key in self._people for word in ("--approve-with", str(key))))
        return [*words, *options, "--config", str(self._config)]

    def start(self, target: Target, *options: str) -> None:
        """Begin to roll a tag out to all nodes."""
        self.spawn(command(*self.words(target, *options)))

    def run(self, target: Target, *options: str, approved: bool = True) -> Done:
        """Roll a tag out to all nodes."""
        self.spawn(command(*self.words(target, *options, approved=approved)))
        return self.wait()

    def roll_back(self, *options: str) -> Done:
        """Take all nodes back to what each of them had before."""
        return self.order("rollback", "shop", "--nodes", str(self._list), "--timeout", "300", *options)

    def begin(self, *words: str) -> None:
        """Begin another command of the desk."""
        self.spawn(command(*words, "--config", str(self._config)))

    def order(self, *words: str) -> Done:
        """Run another command of the desk to its end."""
        self.begin(*words)
        return self.wait()

    def resume(self) -> None:
        """Begin to go on with the last rollout where it is."""
        self.spawn(command("rollout", "resume", self.stored.plan.rollout, "--config", str(self._config)))

    def resume_elsewhere(self) -> None:
        """Begin to go on with the last rollout from a copy of its journal, and nothing else of this machine."""
        self._moves += 1
        there = self._root / f"there-{self._moves}"
        there.mkdir()
        journal = there / "copied.jsonl"
        journal.write_bytes(self.stored.path.read_bytes())
        self.home = attrs.evolve(self.home, rollouts=there / "rollouts")
        config = there / "deploykit.toml"
        config.touch(0o600)
        node, rest = self._settings.split("\n", 1)
        config.write_text(f'{node}\nrollouts = "{there}/rollouts"\n{rest}')
        self._config = config
        self.spawn(command("rollout", "resume", str(journal), "--config", str(config)))

    def ask(self, what: str) -> None:
        """Ask the last rollout to `promote`, `pause` or `abort`, as another process does."""
        ask_rollout(self.home, self.stored.plan.rollout, what)  # type: ignore[arg-type]  # one of the words

    def spawn(self, argv: Sequence[str]) -> None:
        """Begin a command line; its end is `wait`ed for, or it is killed."""
        assert self._process is None
        environment = {**os.environ, MARK_VARIABLE: f"{current_run().mark}.desk"}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)

    def wait(self, timeout: float = 400.0) -> Done:
        """Wait for its end."""
        assert self._process is not None
        process, self._process = self._process, None
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the desk has not ended: {self.output}") from None
        finally:
            process.kill()
            process.wait()
        return Done(code, self.output)

    def kill(self) -> None:
        """Send SIGKILL, and wait for its end."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    @property
    def output(self) -> str:
        """What the last command line has printed."""
        return self._log.read_text(errors="replace")

    @property
    def stored(self) -> StoredRollout:
        """The newest rollout."""
        return read_rollout(self.home, "last")

    def wait_paused(self) -> None:
        """Wait until the journal says that the rollout is paused."""
        wait_until(lambda: self._state() == "paused", "the pause", 120)

    def _state(self) -> str:
        try:
            return self.stored.model.state
        except UsageError:  # it has not begun yet, or the copy of its journal was not taken in yet
            return ""
