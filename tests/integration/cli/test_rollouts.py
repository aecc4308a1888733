"""`deploy`, `rollback` and `rollout` as processes against nodes that really sign: on a terminal, piped, for scripts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from deploykit.broker.server import EmbeddedBroker
from deploykit.messages import DeployProgressed, DeployRequested
from deploykit.messages.progress import ProgressState
from deploykit.names import NodeName
from deploykit.trust.signature import sign
from deploykit.wire import encode
from tests.support.cli import command, run
from tests.support.standins import StandIns, names
from tests.support.terminal import TerminalProgram
from tests.support.wait import wait_until

SCHEMA = Path(__file__).parents[3] / "docs" / "rollout-lines.schema.json"
COMMIT = "ab" * 20
TARGET = ("--ref", "refs/tags/v1", "--commit", COMMIT)
#: What a hostile node may print.
HOSTILE = "[red]boo[/red] \x1b[31m\x1b]0;title\x07"


class Fleet(StandIns):
    """Nodes that stand in for agents, and the settings' file of who asks them."""

    def __init__(
        self, root: Path, broker: EmbeddedBroker, count: int, behaves: Mapping[str, Mapping[str, str]]
    ) -> None:
        super().__init__(root, broker.address, names(count), behaves=behaves)
        self.root = root
        self.file = root / "deploykit.toml"
        self.file.write_text(f"""
node = "desk"
state = "{root / "state"}"
signing_key = "{root / "operator.key"}"
broker = {{ address = "{broker.address}" }}
outbox = {{ path = "{root / "spool"}" }}

[trust]
allowed_signers = "{root / "allowed_signers"}"
skew = 0
""")
        self.file.chmod(0o600)
        self.let_go = threading.Event()
        self._numbers: dict[tuple[str, str], int] = {}

    def hold(self, node: str, phase: str = "deploy", *, step: str = "pre-deploy", output: str = HOSTILE) -> None:
        """Let a node report a step and its output, and wait there until `let_go`."""

        def before(name: NodeName, request: DeployRequested) -> None:
            if (name, request.phase) == (node, phase):
                self.progress(name, request, step, "began")
                self.progress(name, request, step, "output", f"{output}\n")
                self.let_go.wait(300)
                self.progress(name, request, step, "done")

        self.before = before

    def progress(
        self, node: NodeName, request: DeployRequested, step: str, state: ProgressState, output: str = ""
    ) -> None:
        """Publish what a node does, signed."""
        number = self._numbers.get((node, request.id), 0)
        self._numbers[(node, request.id)] = number + 1
        event = DeployProgressed(
            node=node,
            site=request.site,
            request=request.id,
            rollout=request.rollout,
            phase=request.phase,
            number=number,
            step=step,
            state=state,
            output=output,
        )
        self.bus.publish_nowait(self.settings.topics.progress, sign(encode(event), self.nodes[node].key))

    def words(self, *words: str) -> list[str]:
        return command(*words, "--config", str(self.file))

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command, piped."""
        return run(*words, "--config", str(self.file), cwd=self.root)

    def deploy(self, *words: str, nodes: int | None = None) -> list[str]:
        """The words of a deploy to all nodes, or the first ones."""
        chosen = [word for node in names(nodes or len(self.nodes)) for word in ("-I", str(node))]
        return ["deploy", "shop", *TARGET, *chosen, *words]

    @contextmanager
    def on_terminal(self, *words: str) -> Iterator[TerminalProgram]:
        """Run a command on a terminal of 80 columns."""
        env = {"PATH": os.environ["PATH"], "HOME": str(self.root)}
        with TerminalProgram(self.words(*words), env=env, cwd=self.root) as program:
            yield program

    def shown(self) -> dict[str, Any]:
        """The last rollout, as `rollout show --json` has it."""
        shown: dict[str, Any] = json.loads(self.run("rollout", "show", "last", "--json").stdout)
        return shown


@pytest.fixture
def fleet_of(tmp_path: Path, deploykit_broker: EmbeddedBroker) -> Iterator[Any]:
    """Makes a fleet of so many nodes that behave so."""
    made: list[Fleet] = []

    def make(count: int, behaves: Mapping[str, Mapping[str, str]] | None = None) -> Fleet:
        fleet = Fleet(tmp_path, deploykit_broker, count, behaves or {})
        fleet.__enter__()
        made.append(fleet)
        return fleet

    yield make
    for fleet in made:
        fleet.let_go.set()
        fleet.__exit__()


def rollout_id(text: str) -> str:
    """The id in a first line."""
    return text.split("rollout ", 1)[1].split(maxsplit=1)[0]


def test_a_terminal_shows_the_step_that_a_node_is_at_and_keeps_the_end(fleet_of: Any) -> None:
    fleet: Fleet = fleet_of(1)
    fleet.hold("web1")
    with fleet.on_terminal(*fleet.deploy()) as program:
        program.until(lambda text: "waiting for web1 (pre-deploy" in text, "the step of web1")
        program.until(lambda text: "[red]boo[/red]" in text, "what it printed, as it is")
        fleet.let_go.set()
        assert program.end() == 0
        text = program.screen.text
        assert program.screen.cursor_shown
        assert f"rollout {rollout_id(text)} succeeded (1 active)" in text
        assert "waiting for" not in text
        assert "\x1b]0;" not in program.raw
        assert "\x1b[31m" not in program.raw.replace("\x1b[1;31m", "")
        assert all(len(line) <= 80 for line in text.splitlines()[1:-1])


def test_the_first_interrupt_says_how_to_come_back_and_a_resumed_rollout_ends(fleet_of: Any) -> None:
    fleet: Fleet = fleet_of(2)
    fleet.hold("web1", "prepare")
    with fleet.on_terminal(*fleet.deploy()) as program:
        program.until(lambda text: "web1 (pre-deploy" in text, "web1 at work")
        program.press("\x03")
        assert program.end() == 130
        text = program.screen.text
        assert program.screen.cursor_shown
    rollout = rollout_id(text.replace("\n", " "))
    assert f"deploykit rollout resume {rollout}" in text.replace("\n", "")
    assert "web1" in text.split("will finish", maxsplit=1)[0]
    left = fleet.run("rollout", "show", rollout[:-2])
    assert left.returncode == 1
    assert "nobody goes on with it" in left.stdout
    fleet.let_go.set()
    resumed = fleet.run("rollout", "resume", rollout)
    assert resumed.returncode == 0, resumed.stderr
    assert fleet.run("rollout", "show").returncode == 0
    assert [fleet.acted(node) for node in ("web1", "web2")] == [["prepare", "activate"]] * 2


def test_a_second_interrupt_ends_at_once(fleet_of: Any) -> None:
    fleet: Fleet = fleet_of(1)
    fleet.hold("web1")
    slow = fleet.root / "slow.py"  # whose bus takes its time to stop
    slow.write_text(
        "import threading\nfrom deploykit.bus import Bus\nfrom deploykit.cli import main\n"
        "def stop(self, *_):\n    print('stopping', flush=True)\n    threading.Event().wait(600)\n"
        "Bus.__exit__ = stop\nmain()\n"
    )
    words = fleet.words(*fleet.deploy())
    with TerminalProgram([words[0], "-P", str(slow), *words[4:]], env=dict(os.environ), cwd=fleet.root) as program:
        program.until(lambda text: "web1 (pre-deploy" in text, "web1 at work")
        program.press("\x03")
        program.until(lambda text: "stopping" in text, "it stops")
        program.press("\x03")
        assert program.end() == 130


def test_a_person_is_asked_before_each_batch(fleet_of: Any) -> None:
    fleet: Fleet = fleet_of(3)
    with fleet.on_terminal(*fleet.deploy("--batch", "1", "--pause", "ask")) as program:
        program.until(lambda text: "go on?" in text, "the question")
        assert fleet.acted("web2") == ["prepare"]
        fleet.hold("web2", "activate", output="")  # the next question must not come before this one was seen to go
        program.press("xy")
        program.until(lambda text: "go on?" not in text, "the answer is taken")
        fleet.let_go.set()
        program.until(lambda text: "go on?" in text, "the question once more")
        assert "activate" in fleet.acted("web2"), "the first batch"
        program.press("n")
        assert program.end() == 1
        text = program.screen.text
    assert "was aborted" in text
    assert fleet.acted("web3") == ["prepare", "discard"]


def test_without_a_terminal_a_pause_says_how_to_go_on(fleet_of: Any) -> None:
    fleet: Fleet = fleet_of(2)
    words = fleet.words(*fleet.deploy("--pause", "ask"))
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        said = next(line for line in lines if "waits for a person" in line)
        rollout = said.split()[-1]
        assert fleet.run("rollout", "show", rollout).returncode == 0  # it runs
        assert fleet.run("rollout", "promote", rollout).returncode == 0
        rest = process.stdout.read()
        assert process.wait(60) == 0
    assert "succeeded (2 active)" in rest


def test_a_canary_that_fails_ends_with_1_and_the_failed_are_retried(fleet_of: Any) -> None:
    fleet: Fleet = fleet_of(3, {"web1": {"activate": "failure"}})
    done = fleet.run(*fleet.deploy())
    assert done.returncode == 1
    assert "failed   web1  activate: activate was told to end so" in done.stderr
    assert "asked" not in done.stderr
    rollout = rollout_id(done.stdout)
    assert f"--retry-failed {rollout}" in done.stderr
    assert fleet.run("rollout", "show", rollout, "--list", "failed").stdout == "web1\n"
    assert fleet.run("rollout", "show", rollout).returncode == 1
    fleet.nodes[NodeName("web1")].behaves.clear()
    moved = fleet.run("deploy", "shop", "--retry-failed", rollout, "--commit", "cd" * 20)
    assert (moved.returncode, f"of commit {COMMIT}, not {'cd' * 20}" in moved.stderr) == (2, True)
    again = fleet.run("deploy", "shop", "--retry-failed", rollout[:-1], "--commit", COMMIT)
    assert again.returncode == 0, again.stderr
    assert fleet.live()["web1"] == COMMIT
    assert fleet.live()["web2"] != COMMIT
    kept = json.loads(fleet.run("rollout", "list", "--json").stdout)
    assert [entry["state"] for entry in kept] == ["succeeded", "failed"]
    table = fleet.run("rollout", "list").stdout.splitlines()
    assert [line.split()[0] for line in table] == ["ROLLOUT", kept[0]["rollout"], kept[1]["rollout"]]


def test_all_refused_ends_with_3(fleet_of: Any) -> None:
    fleet: Fleet = fleet_of(2, {"web1": {"prepare": "refused"}, "web2": {"prepare": "refused"}})
    done = fleet.run(*fleet.deploy())
    assert done.returncode == 3
    assert "refused  web1  prepare: prepare was told to end so" in done.stderr


def test_a_report_that_is_not_believed_is_told_apart_from_silence(fleet_of: Any) -> None:
    fleet: Fleet = fleet_of(2, {"web1": {"prepare": "silent"}})
    fleet.nodes[NodeName("web2")].key = fleet.operator
    done = fleet.run(*fleet.deploy("--timeout", "8"))
    assert done.returncode == 1
    assert "a report in the name of web2 was not believed" in done.stderr
    silent, doubted, reason = done.stderr.partition("  silent ")[2].splitlines()[:3]
    assert silent.startswith("  web1  prepare: did not answer in time; it may yet obey until ")
    assert doubted.startswith("  silent   web2  prepare: did not answer in time")
    assert reason.strip().startswith("a report in its name came, and was not believed: ")
    assert "deploykit history shop" in done.stderr
    shown = fleet.run("rollout", "show")
    assert shown.returncode == 1
    assert "a report in its name was not believed: " in shown.stdout


def test_scripts_get_json_lines_of_one_shape(fleet_of: Any) -> None:
    fleet: Fleet = fleet_of(3, {"web2": {"activate": "failure"}})
    fleet.let_go.set()
    fleet.hold("web1", "activate")
    done = fleet.run(*fleet.deploy("--json", "--on-failure", "rollback"))
    assert done.returncode == 1
    validator = Draft202012Validator(json.loads(SCHEMA.read_text()))
    entries = [json.loads(line) for line in done.stdout.splitlines()]
    for entry in entries:
        validator.validate(entry)
    assert entries[0]["event"] == "plan"
    assert entries[-1]["event"] == "end"
    assert entries[-1]["state"] == "rolled-back"
    assert [node["node"] for node in entries[-1]["nodes"]] == ["web2"]
    assert {"rollout", "node"} <= {entry["event"] for entry in entries}
    assert all(line.isprintable() for line in done.stdout.splitlines())


def test_a_reader_that_goes_away_does_not_leave_a_traceback(fleet_of: Any) -> None:
    fleet: Fleet = fleet_of(2)
    fleet.hold("web1", "prepare")
    words = fleet.words(*fleet.deploy())
    with subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        fleet.let_go.set()
        assert process.wait(60) == 1
        assert "Traceback" not in process.stderr.read()
    assert fleet.run("rollout", "resume", "last").returncode == 0


def test_a_rollout_is_paused_promoted_and_aborted_by_another_process(fleet_of: Any) -> None:
    fleet: Fleet = fleet_of(3)
    fleet.hold("web1", "activate")
    words = fleet.words(*fleet.deploy("--batch", "1"))
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        fleet.wait_acted("web3", "prepare")
        assert fleet.run("rollout", "pause", "last").returncode == 0
        fleet.let_go.set()
        wait_until(lambda: fleet.shown()["state"] == "paused", "the pause")
        asked = fleet.run("rollout", "abort", "last", "--rollback", "--json")
        assert json.loads(asked.stdout)["asked"] == "abort"
        assert process.wait(60) == 1
    assert fleet.shown()["state"] == "rolled-back"
    assert COMMIT not in fleet.live().values()
    ended = fleet.run("rollout", "abort", "last")
    assert ended.returncode == 2
    assert "has ended" in ended.stderr


def test_a_killed_rollout_is_aborted_from_its_journal(fleet_of: Any) -> None:
    fleet: Fleet = fleet_of(3)
    fleet.hold("web1", "activate")
    with subprocess.Popen(
        fleet.words(*fleet.deploy()), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    ) as process:
        fleet.wait_acted("web3", "prepare")
        wait_until(lambda: fleet.shown()["state"] == "canary", "the canary")
        process.send_signal(signal.SIGKILL)
    fleet.let_go.set()
    done = fleet.run("rollout", "abort", "last", "--rollback")
    assert done.returncode == 0
    assert fleet.run("rollout", "show").returncode == 1
    assert fleet.shown()["state"] == "rolled-back"
    assert COMMIT not in fleet.live().values()
