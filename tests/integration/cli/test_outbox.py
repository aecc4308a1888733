"""`deploykit outbox` and `deploykit relay`, run as a user would run them."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploykit.broker.server import EmbeddedBroker
from deploykit.errors import PublishRefused
from deploykit.outbox import Outbox
from deploykit.outbox.relay import Relay
from deploykit.testing.fakes import FakeBus
from deploykit.wire.frame import Frame
from tests.support.cli import command, run, run_here

TOPIC = "/topic/a"


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    return Outbox(tmp_path / "spool")


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as running:
        yield running


@pytest.fixture
def config(tmp_path: Path, outbox: Outbox, broker: EmbeddedBroker) -> Path:
    path = tmp_path / "deploykit.toml"
    path.write_text(f'[broker]\naddress = "{broker.address}"\n[outbox]\npath = "{outbox.path}"\n')
    path.chmod(0o600)
    return path


def bury(outbox: Outbox, *texts: str) -> list[str]:
    """Make dead letters the way the relay does."""
    for text in texts:
        outbox.put(TOPIC, Frame({"subject": f"subject of {text}"}, text.encode()))
    bus = FakeBus(lambda _: PublishRefused("the broker says no"))
    report = Relay(outbox, bus, max_attempts=1, pause=0.0).drain_once(10)
    return [str(dead.id) for dead in report.dead_letters]


def cli(outbox: Outbox, *words: str) -> subprocess.CompletedProcess[str]:
    return run_here("outbox", words[0], "--spool", outbox.path, *words[1:])


def test_list_shows_what_waits_in_order_as_lines_and_as_json(outbox: Outbox) -> None:
    ids = [outbox.put(TOPIC, Frame({"subject": f"line {n}"}, b"x" * n)) for n in range(3)]
    lines = cli(outbox, "list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ids
    assert lines[2].endswith("/topic/a  2 B  line 2")
    rows = json.loads(cli(outbox, "list", "--json", "-n", "2").stdout)
    assert [row["id"] for row in rows] == ids[:2]
    assert rows[0]["state"] == "waiting"
    assert json.loads(cli(outbox, "list", "--dead", "--json").stdout) == []


@pytest.mark.parametrize(
    ("options", "says"),
    [((), "nothing waits"), (("--dead",), "no dead letters"), (("--bad",), "nothing was set aside")],
)
def test_an_empty_list_says_so_where_it_is_not_in_the_way(outbox: Outbox, options: tuple[str, ...], says: str) -> None:
    done = cli(outbox, "list", *options)
    assert (done.stdout, done.stderr) == ("", f"{says}\n")
    assert cli(outbox, "list", *options, "--json").stderr == ""


def test_a_message_cannot_write_to_the_readers_terminal(outbox: Outbox) -> None:
    outbox.put("/topic/\x1b[31m", Frame({"subject": "\x1b]0;pwned\x07"}, b"\x1b[2Jbody"))
    for words in (["list"], ["show", outbox.pending().__next__().id]):
        out = cli(outbox, *words).stdout
        assert "\x1b" not in out
        assert "\\x1b" in out


def test_json_cannot_write_to_the_readers_terminal_and_takes_any_file_name(outbox: Outbox) -> None:
    outbox.put(TOPIC, Frame({"subject": "a\x9b31mb\u202ec"}, b""))
    Path(os.fsdecode(os.fsencode(outbox.path) + b"/odd\xff")).touch()
    strict = {"PYTHONIOENCODING": "utf-8:strict"}  # as in a locale that is not C.UTF-8
    listed = run("outbox", "list", "--json", "--spool", outbox.path, env=strict)
    assert "\x9b" not in listed.stdout
    assert json.loads(listed.stdout)[0]["subject"] == "a\x9b31mb\u202ec"
    bad = run("outbox", "list", "--bad", "--json", "--spool", outbox.path, env=strict)
    assert json.loads(bad.stdout)[0]["name"] == "odd\udcff"


def test_a_closed_output_is_no_traceback(outbox: Outbox) -> None:
    record = outbox.put(TOPIC, Frame({}, b"body"))
    words = " ".join(map(shlex.quote, command("outbox", "show", "--spool", outbox.path, str(record), "--body")))
    for output in (">&-", ">/dev/full"):
        done = subprocess.run(["sh", "-c", f"{words} {output}"], stderr=subprocess.PIPE, text=True, check=False)
        assert "Traceback" not in done.stderr


def test_show_takes_part_of_an_id_and_gives_the_body_byte_for_byte(outbox: Outbox) -> None:
    body = bytes(range(256))
    record_id = outbox.put(TOPIC, Frame({"content-type": "text/plain"}, body))
    shown = cli(outbox, "show", record_id[-10:]).stdout
    assert "destination: /topic/a" in shown
    assert "content-type: text/plain" in shown
    raw = subprocess.run(
        command("outbox", "show", "--spool", outbox.path, record_id, "--body"), capture_output=True, check=True
    )
    assert raw.stdout == body
    assert json.loads(cli(outbox, "show", record_id, "--json").stdout)["headers"] == {"content-type": "text/plain"}


def test_dead_letters_are_listed_with_their_reason_queued_again_or_dropped(outbox: Outbox) -> None:
    first, second, third = bury(outbox, "one", "two", "three")
    listed = cli(outbox, "list", "--dead").stdout.splitlines()
    assert [line.split()[0] for line in listed] == [first, second, third]
    assert "the broker says no" in listed[0]

    assert cli(outbox, "drop", second).stdout == f"{second} is dropped\n"
    moved = json.loads(cli(outbox, "retry", "--all", "--json").stdout)
    assert [one["id"] for one in moved] == [first, third]
    assert [(r.id, r.frame.body) for r in outbox.pending()] == [
        (moved[0]["new_id"], b"one"),
        (moved[1]["new_id"], b"three"),
    ]
    assert list(outbox.dead()) == []


def test_drop_takes_one_record_out_of_a_push(outbox: Outbox) -> None:
    from deploykit.outbox import Outgoing

    ids = outbox.put_many(Outgoing(TOPIC, Frame({}, b"%d" % n)) for n in range(3))
    assert cli(outbox, "drop", ids[1]).returncode == 0
    assert [r.frame.body for r in outbox.pending()] == [b"0", b"2"]


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["show", "nothing-like-it"], 1, "no record 'nothing-like-it'"),
        (["retry"], 2, "no messages named"),
        (["retry", "WAITING"], 1, "still waiting to be sent"),
        (["drop", "WAITING", "nothing-like-it"], 1, "no record"),
        (["show", "0"], 1, "more than one"),
    ],
)
def test_a_wrong_id_is_one_clear_line_and_changes_nothing(
    outbox: Outbox, words: list[str], code: int, says: str
) -> None:
    waiting = [outbox.put(TOPIC, Frame({}, b"1")), outbox.put(TOPIC, Frame({}, b"2"))]
    done = cli(outbox, *[waiting[0] if word == "WAITING" else word for word in words])
    assert done.returncode == code
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert [r.id for r in outbox.pending()] == waiting


def test_a_missing_spool_is_not_made_by_looking_at_it(tmp_path: Path) -> None:
    done = run_here("outbox", "list", "--spool", str(tmp_path / "nowhere"))
    assert done.returncode == 1
    assert "cannot open spool" in done.stderr
    assert not (tmp_path / "nowhere").exists()


# -- relay -----------------------------------------------------------------------------------------------------------


def test_relay_once_sends_what_waits_and_ends(outbox: Outbox, config: Path) -> None:
    outbox.put(TOPIC, Frame({}, b"1"))
    done = run("relay", "--config", str(config), "--once", "--json")
    assert json.loads(done.stdout) == {"sent": 1, "complete": True, "trouble": "", "dead_letters": []}
    assert done.returncode == 0
    assert list(outbox.pending()) == []


def test_relay_once_without_a_broker_says_what_is_left_and_keeps_it(
    outbox: Outbox, config: Path, broker: EmbeddedBroker
) -> None:
    broker.stop()
    outbox.put(TOPIC, Frame({}, b"1"))
    done = run("relay", "--config", str(config), "--once", "--deadline", "0.5")
    assert done.returncode == 1
    assert "0 sent, some still wait: no broker reachable" in done.stdout
    assert len(list(outbox.pending())) == 1


def test_the_relay_daemon_sends_records_as_they_come_and_ends_well_on_term(outbox: Outbox, config: Path) -> None:
    process = subprocess.Popen(
        command("relay", "--config", str(config)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == f"ready: relay of {outbox.path}\n"
        outbox.put(TOPIC, Frame({}, b"1"))
        while next(outbox.pending(), None) is not None:
            assert process.poll() is None
        second = run("relay", "--config", str(config))
        assert second.returncode == 1
        assert "another relay works on spool" in second.stderr
        assert len(second.stderr.splitlines()) == 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.communicate()


def test_relay_with_a_wrong_passcode_is_one_clear_line(outbox: Outbox, config: Path, tmp_path: Path) -> None:
    with EmbeddedBroker(users={"me": "secret-canary"}) as strict:
        config.write_text(
            f'[broker]\naddress = "stomp://127.0.0.1:{strict.port}"\nlogin = "me"\npasscode = "wrong-canary"\n'
            f'[outbox]\npath = "{outbox.path}"\n'
        )
        for words in (["--once", "--deadline", "50"], []):
            done = run("relay", "--config", str(config), *words)
            assert done.returncode == 1, done
            assert "Traceback" not in done.stderr
            assert "wrong-canary" not in done.stderr
            assert "login" in done.stderr.lower() or "refused" in done.stderr.lower()


def test_the_command_line_loads_for_help_without_a_spool() -> None:
    for words in (["outbox", "--help"], ["relay", "--help"], *(["outbox", w, "-h"] for w in ("list", "drop"))):
        assert "Example" in run_here(*words).stdout, sys.argv
