"""What haproxy's master says of a reload; and a socket where something else answers: slowly, endlessly or not."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from deploykit.daemons.access.haproxymaster import HaproxyMaster, parse_look, verdict_of
from deploykit.daemons.access.sitefile import SiteAccessFile
from deploykit.errors import AccessError
from deploykit.settings import AccessSiteSettings
from tests.unit.daemons.access.test_sitefile import SHOP, grant

#: As haproxy 2.6.12 wrote it: before, after a good reload, after one that failed, and of 2.4, which counts no failures.
BEFORE = """#<PID>          <type>          <reloads>       <uptime>        <version>
100             master          3 [failed: 0]   0d00h00m06s     2.6.12-1+deb12u4
# workers
201             worker          0               0d00h00m06s     2.6.12-1+deb12u4
# old workers
190             worker          1               0d00h01m06s     2.6.12-1+deb12u4
# programs

"""
GOOD = BEFORE.replace("3 [failed: 0]", "4 [failed: 0]").replace("201 ", "202 ").replace("190 ", "201 ")
FAILED = BEFORE.replace("3 [failed: 0]", "4 [failed: 1]").replace("worker          0", "worker          1")
OLDER = BEFORE.replace("3 [failed: 0]", "4            ")
NO_WORKER = GOOD.replace("202             worker          0               0d00h00m06s     2.6.12-1+deb12u4\n", "")


def test_what_the_master_says_is_read() -> None:
    look = parse_look(BEFORE)
    assert (look.master, look.reloads, look.failed) == (100, 3, 0)
    assert (look.workers, look.old) == (frozenset([201]), frozenset([190]))
    assert parse_look(OLDER).failed == 0


@pytest.mark.parametrize(
    ("now", "verdict"),
    [
        (BEFORE, "waits"),
        (GOOD, "new"),
        (FAILED, "failed"),
        (OLDER, "waits"),
        (NO_WORKER, "waits"),
        (GOOD.replace("202 ", "190 "), "waits"),  # an old worker is no new one
        (GOOD.replace("100 ", "300 "), "new"),  # started anew by a service manager
        (BEFORE.replace("[failed: 0]", "[failed: 2]"), "waits"),  # it failed before ours was asked for
    ],
)
def test_a_reload_is_done_once_there_is_a_worker_that_was_not_there_before(now: str, verdict: str) -> None:
    assert verdict_of(parse_look(BEFORE), parse_look(now)) == verdict


@pytest.mark.parametrize(
    "text", ["", "\n" * 1000, "Unknown command\n", "1 master\n", "x" * 100_000, "Permission denied"]
)
def test_what_is_no_answer_of_haproxys_is_an_error(text: str) -> None:
    with pytest.raises(AccessError, match="does not answer as a master of haproxy does"):
        parse_look(text)


# -- a socket where something answers ----------------------------------------------------------------------------------

Answer = Callable[[str, socket.socket], None]


class FakeMaster:
    """A socket of which `answer` serves each connection; the commands are kept."""

    def __init__(self, path: Path, answer: Answer) -> None:
        self.path, self.answer, self.commands = path, answer, list[str]()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> FakeMaster:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(30)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                one, _ = self._listener.accept()
            except OSError:
                return
            with one, contextlib.suppress(OSError):
                one.settimeout(20)
                self.commands.append(one.recv(1000).decode().strip())
                self.answer(self.commands[-1], one)


def scripted(*answers: str) -> Answer:
    """Answer `show proc` by each in turn and then by the last one, and `show info` as worker 202."""
    left = list(answers)

    def answer(command: str, one: socket.socket) -> None:
        if command == "show proc":
            one.sendall((left.pop(0) if len(left) > 1 else left[0]).encode())
        elif command.endswith("show info"):
            one.sendall(b"Name: HAProxy\nPid: 202\nStopping: 0\n\n")

    return answer


@contextlib.contextmanager
def master(
    path: Path, answer: Answer, *, seconds: float = 5.0, reload_seconds: float = 0.3
) -> Iterator[tuple[HaproxyMaster, FakeMaster]]:
    with FakeMaster(path / "m", answer) as fake:
        yield HaproxyMaster(fake.path, seconds=seconds, reload_seconds=reload_seconds), fake


def test_a_socket_where_nobody_may_look_is_a_problem_and_no_failure_of_the_daemon(tmp_path: Path) -> None:
    """`Path.exists` raises an error for a directory that may not be searched, as for a name that is too long."""
    with pytest.raises(AccessError, match="it cannot be asked"):
        HaproxyMaster(tmp_path / ("x" * 300)).ready()


def test_a_reload_is_asked_for_and_looked_for(tmp_path: Path) -> None:
    with master(tmp_path, scripted(BEFORE, BEFORE, GOOD), reload_seconds=20.0) as (one, fake):
        assert one.reload() == ""
    assert fake.commands == ["show proc", "reload", "show proc", "show proc", "@!202 show info"]


@pytest.mark.parametrize(
    ("after", "says"),
    [
        (FAILED, "its old process serves on with the old users"),
        (BEFORE, "has not shown a new worker within 0.3 s"),
        (NO_WORKER, "has not shown a new worker"),
        (GOOD.replace("202 ", "203 "), "has not shown a new worker"),  # another one than the one that answers
        ("rubbish\n", "has not shown a new worker"),
    ],
)
def test_what_is_not_carried_out_is_a_failure(tmp_path: Path, after: str, says: str) -> None:
    with master(tmp_path, scripted(BEFORE, after)) as (one, _):
        assert says in one.reload(lambda: "")


def test_a_worker_that_is_about_to_end_does_not_count(tmp_path: Path) -> None:
    def answer(command: str, one: socket.socket) -> None:
        one.sendall((b"Pid: 202\nStopping: 1\n") if "info" in command else states.pop(0).encode() if states else b"")

    states = [BEFORE, GOOD, GOOD]
    with master(tmp_path, answer) as (one, _):
        assert "has not shown a new worker" in one.reload(lambda: "")


def test_a_command_that_fails_and_a_refused_one_say_so(tmp_path: Path) -> None:
    with master(tmp_path, scripted(BEFORE)) as (one, fake):
        assert one.reload(lambda: "it ended with 1") == "it ended with 1"
        assert fake.commands == ["show proc"]

    def refuses(command: str, one: socket.socket) -> None:
        one.sendall(b"Permission denied\n" if command == "reload" else BEFORE.encode())

    (tmp_path / "m").unlink()
    with master(tmp_path, refuses) as (one, _):
        assert "level admin" in one.reload()


def silent(_command: str, one: socket.socket) -> None:
    while one.recv(1000):
        pass
    one.settimeout(None)
    threading.Event().wait(0.5)  # longer than the question may take


def endless(_command: str, one: socket.socket) -> None:
    while True:
        one.sendall(b"\x1b[31m# workers\n" * 5000)


def drips(_command: str, one: socket.socket) -> None:
    for _ in range(100):
        one.sendall(b"x")
        threading.Event().wait(0.01)  # one byte at a time, for longer than the question may take


@pytest.mark.parametrize(
    ("answer", "says"), [(silent, "does not answer"), (endless, "longer than"), (drips, "does not answer")]
)
def test_a_hostile_answer_has_an_end(tmp_path: Path, answer: Answer, says: str) -> None:
    with (
        master(tmp_path, answer, seconds=5.0 if answer is endless else 0.2) as (one, fake),
        pytest.raises(AccessError, match=says) as raised,
    ):
        one.look()
    assert str(fake.path) in str(raised.value)
    assert "\x1b" not in str(raised.value)


def test_nothing_of_an_answer_is_shown(tmp_path: Path) -> None:
    def secret(_command: str, one: socket.socket) -> None:
        one.sendall(b"user a password $6$canary$x\n")

    with master(tmp_path, secret, seconds=0.1) as (one, _):
        assert "canary" not in one.reload()


@pytest.mark.parametrize("what", ["missing", "file", "closed", "long"])
def test_without_a_master_nothing_is_changed(tmp_path: Path, what: str) -> None:
    path = tmp_path / ("m" * 120 if what == "long" else "m")
    if what == "file":
        path.touch()
    if what == "closed":
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(str(path))
    file, ran = tmp_path / "users", list[Sequence[str]]()
    file.write_text("userlist shop\n")
    before = file.stat()
    settings = AccessSiteSettings(file=file, kind="haproxy", userlist="shop", test=("/t",), reload=("/r",), master=path)

    def run(words: Sequence[str]) -> str:
        ran.append(words)
        return ""

    site = SiteAccessFile(SHOP, settings, tmp_path, run=run, master=HaproxyMaster(path, seconds=0.1))
    (outcome,) = site.apply([grant()])
    assert (outcome.outcome, str(path) in outcome.detail) == ("failed", True)
    assert "start haproxy with -W -S" in outcome.detail
    assert ran == []
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_no_descriptor_is_left(tmp_path: Path) -> None:
    with master(tmp_path, scripted(BEFORE, GOOD)) as (one, _):
        before = len([*Path("/proc/self/fd").iterdir()])
        assert one.reload() == ""
        assert len([*Path("/proc/self/fd").iterdir()]) <= before + 1  # of the fake's own, which may be open still
