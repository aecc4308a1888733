"""From the spool on: a relay is woken or started, whether the broker is there or not, and nobody waits for it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploykit.broker.server import EmbeddedBroker
from deploykit.wire import decode
from tests.support.hookworld import OWNER, PUSHER, World, lines
from tests.support.needs import missing, needs
from tests.support.processes import is_running
from tests.support.wait import wait_until

SOURCE = "/topic/deploykit.source"


def relay_settings(world: World, port: int, name: str = "relay", owner: int = PUSHER) -> Path:
    """Settings for a relay of `owner`, with a passcode file that nobody else may read; it only sends when woken."""
    secret = world.write(world.root / f"{name}.passcode", "hook-passcode\n", 0o600)
    broker = f'address = "stomp://127.0.0.1:{port}"\nlogin = "hooks"\npasscode_file = "{secret}"\nbackoff_max = 0.2\n'
    path = world.write(
        world.root / f"{name}.toml", f'[broker]\n{broker}[outbox]\npath = "{world.spool}"\nrescan = 600\n', 0o600
    )
    if world.is_root:
        for file in (secret, path):
            os.chown(file, owner, owner)
    return path


@contextlib.contextmanager
def a_broker() -> Iterator[EmbeddedBroker]:
    """A broker that knows the login of `relay_settings`."""
    with EmbeddedBroker(users={"hooks": "hook-passcode"}, record=10_000) as broker:
        yield broker


@contextlib.contextmanager
def a_relay(world: World, settings: Path) -> Iterator[None]:
    """The relay of the spool's owner, at work."""
    who = {"user": OWNER, "group": OWNER, "extra_groups": [64210]} if world.is_root else {}
    command = [str(world.python), "-I", "-m", "deploykit", "relay", "--config", str(settings)]
    env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    with subprocess.Popen(command, env=env, cwd="/", stdout=subprocess.PIPE, text=True, **who) as relay:  # type: ignore[call-overload]
        try:
            assert relay.stdout.readline().startswith("ready")
            yield
        finally:
            relay.send_signal(signal.SIGTERM)
            relay.wait(60)


def told(broker: EmbeddedBroker) -> list[str]:
    """The new ids that the broker was told of."""
    found = (decode(frame.headers, frame.body) for frame in broker.sent(SOURCE))
    return [getattr(message, "new", "") for message in found]


def arrived(before: list[str], broker: EmbeddedBroker) -> list[str]:
    """What brokers were told of, now and before, in order; one that died before its receipt is told once more."""
    return list(dict.fromkeys([*before, *told(broker)]))


def test_a_push_wakes_the_relay_at_work(world: World) -> None:
    work = world.clone(world.origin())
    with a_broker() as broker, a_relay(world, relay_settings(world, broker.port, "owner", OWNER)):
        commit = world.commit(work)
        done = world.git("push", "origin", "main", cwd=work)
        assert lines(done) == ["deploykit: 1 event queued"]
        wait_until(lambda: arrived([], broker) == [commit], "the event at the broker", 60)
        wait_until(lambda: not world.records(), "the empty spool", 60)


def test_without_a_relay_one_is_started_and_sends_what_waits(world: World) -> None:
    with a_broker() as broker:
        origin = world.origin(settings=f'relay = "{relay_settings(world, broker.port)}"\n')
        work = world.clone(origin)
        commit = world.commit(work)
        done = world.git("push", "origin", "main", cwd=work)
        assert lines(done) == ["deploykit: 1 event queued"]
        wait_until(lambda: arrived([], broker) == [commit], "the event at the broker", 60)
        wait_until(lambda: not world.records(), "the empty spool", 60)


def test_a_push_while_the_broker_is_down_is_as_quick_and_its_event_arrives_after(world: World) -> None:
    """Issue 2, Shows 4."""
    work = world.clone(world.origin())
    with a_broker() as broker, a_relay(world, relay_settings(world, broker.port, "owner", OWNER)):
        pushed: list[str] = []

        def push() -> float:
            pushed.append(world.commit(work))
            began = time.monotonic()
            done = world.git("push", "origin", "main", cwd=work)
            took = time.monotonic() - began
            assert lines(done) == ["deploykit: 1 event queued"]
            return took

        push()
        up, down = [], []
        heard: list[str] = []  # by brokers that are dead now
        for _ in range(3):  # interleaved, so that other load weighs on both
            up += [push(), push()]
            wait_until(lambda: arrived(heard, broker) == pushed, "what was pushed while it was up", 60)
            wait_until(lambda: not world.records(), "the empty spool", 60)  # the relay has its receipts
            heard[:] = arrived(heard, broker)
            broker.kill()
            down += [push(), push()]
            assert len(world.events()) == 2
            broker.restart()
            wait_until(lambda: arrived(heard, broker) == pushed, "what was pushed while it was down", 60)
        # A hook that waited for a broker would do so each time; noise only adds. The benchmark measures it finely.
        assert min(down) < 1.5 * max(up) + 0.2


def test_the_relay_that_is_started_is_nobodys_child_and_holds_nothing_of_the_push(world: World) -> None:
    """The pusher's connection must close at once: own session, no descriptor, and no variable inherited."""
    with socket.create_server(("127.0.0.1", 0)) as mute:  # takes connections and never answers: the relay stays
        settings = relay_settings(world, mute.getsockname()[1])
        origin = world.origin(settings=f'relay = "{settings}"\n')
        work = world.clone(origin)
        commit = world.commit(work)
        world.git("push", "origin", "main", cwd=work, env={"GIT_TRACE2": "0"})
        pids = _relays(world)
        _end(pids)
        world.empty_spool()
        feed = f"{'0' * 40} {commit} refs/heads/main\n".encode()
        keep, give = os.pipe()
        os.set_inheritable(give, True)
        env = {"SECRET": "canary", "LD_LIBRARY_PATH": "/nonexistent", "GIT_DIR": str(origin), "PATH": "/usr/bin:/bin"}
        who = {"user": PUSHER, "group": PUSHER, "extra_groups": [64210]} if world.is_root else {}
        hook = subprocess.run(  # type: ignore[call-overload]
            [origin / "hooks" / "post-receive"],
            input=feed,
            env=env,
            cwd=origin,
            capture_output=True,
            pass_fds=(give,),
            **who,
        )
        os.close(give)
        assert hook.stderr == b"deploykit: 1 event queued\n"
        os.set_blocking(keep, False)
        assert os.read(keep, 1) == b"", "somebody still holds a descriptor of the push"
        os.close(keep)
        pids = _relays(world)
        try:
            (pid,) = pids
            wait_until(lambda: str(Path(f"/proc/{pid}/cwd").readlink()) == "/", "the relay to be on its way", 60)
            stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            assert int(stat[3]) == pid, "it is in somebody else's session"
            variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            assert {v.partition(b"=")[0].decode() for v in variables if v} <= {
                "PATH",
                "HOME",
                "LC_ALL",
                "USER",
                "LOGNAME",
            }
            for fd in range(3):
                assert str(Path(f"/proc/{pid}/fd/{fd}").readlink()) == "/dev/null"
            assert str(Path(f"/proc/{pid}/cwd").readlink()) == "/", "it keeps the repository's directory busy"
            assert int(stat[16]) - os.nice(0) == 10, "it takes the processor from the next push"
            if world.is_root:
                assert Path(f"/proc/{pid}").stat().st_uid == PUSHER
        finally:
            _end(pids)


def _relays(world: World) -> list[int]:
    """The relays on this world's spool, by pid."""
    found: list[int] = []

    def some() -> bool:
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                words = path.read_bytes().split(b"\0")
                if str(world.spool).encode() in words and b"relay" in words:
                    found.append(int(path.parent.name))
        return bool(found)

    wait_until(some, "a relay", 60)
    return found


def _end(pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not any(is_running(pid) for pid in pids), "the relays to end", 60)


def test_settings_of_the_relay_that_the_pusher_cannot_read_are_named(world: World) -> None:
    if not world.is_root:
        missing("root, to become other users")
    settings = relay_settings(world, 1, "owner", OWNER)
    work = world.clone(world.origin(settings=f'relay = "{settings}"\n'))
    world.commit(work)
    (line,) = lines(world.git("push", "origin", "main", cwd=work))
    assert f"1 event queued in {world.spool}" in line
    assert f"no relay is at work, and this user cannot read {settings} to start one" in line


def test_a_dead_relay_is_not_taken_for_a_living_one(world: World) -> None:
    """What a killed relay leaves behind keeps no push from starting another."""
    with a_broker() as broker:
        owner = relay_settings(world, broker.port, "owner", OWNER)
        with a_relay(world, owner):
            _end([_pid_of(owner)])
        origin = world.origin(settings=f'relay = "{relay_settings(world, broker.port)}"\n')
        work = world.clone(origin)
        commit = world.commit(work)
        assert lines(world.git("push", "origin", "main", cwd=work)) == ["deploykit: 1 event queued"]
        wait_until(lambda: arrived([], broker) == [commit], "the event at the broker", 60)


def test_nothing_on_a_pushs_path_waits_without_a_deadline(world: World) -> None:
    """Every call that could wait for somebody else, as the kernel sees it: no lock, no network, no endless poll."""
    strace = needs("strace", package="strace")
    origin = world.origin()
    work = world.clone(origin)
    commit = world.commit(work)
    world.git("push", "origin", "main", cwd=work)
    world.empty_spool()
    with a_broker() as broker, a_relay(world, relay_settings(world, broker.port, "owner", OWNER)):
        trace = world.root / "work" / "trace"
        calls = "flock,fcntl,poll,ppoll,select,pselect6,epoll_wait,epoll_pwait,wait4,waitid,connect,accept,accept4"
        feed = f"{'0' * 40} {commit} refs/heads/main\n".encode()
        hook = origin / "hooks" / "post-receive"
        done = world.run(strace, "-o", trace, "-e", f"trace={calls}", hook, cwd=origin, data=feed)
        assert lines(done) == ["deploykit: 1 event queued"]
    seen = [line for line in trace.read_text().splitlines() if "(" in line]
    assert any(line.startswith("poll(") for line in seen), "it talked to git"
    # The name service's socket is libc's own business: a lookup of the user, which sshd did before us.
    waits = [
        line
        for line in seen
        if line.startswith(("flock(", "select(", "pselect6(", "epoll", "accept", "waitid("))
        or "SETLKW" in line
        or (line.startswith(("poll(", "ppoll(")) and ", -1)" in line)
        or (line.startswith("wait4(") and "WNOHANG" not in line)
        or (line.startswith("connect(") and "nscd" not in line)
    ]
    assert waits == []


def _pid_of(settings: Path) -> int:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if str(settings).encode() in path.read_bytes().split(b"\0"):
                return int(path.parent.name)
    raise AssertionError("no relay")


@pytest.mark.parametrize("many", [20])
def test_many_pushes_at_once_lose_nothing(world: World, many: int) -> None:
    """Each finds no relay and starts one; one works, and what comes while it ends is sent too."""
    with a_broker() as broker:
        origin = world.origin(settings=f'relay = "{relay_settings(world, broker.port)}"\n')
        work = world.clone(origin)
        commit = world.commit(work)
        world.git("push", "origin", "main", cwd=work)
        hook = origin / "hooks" / "post-receive"
        who = {"user": PUSHER, "group": PUSHER, "extra_groups": [64210]} if world.is_root else {}
        running = []
        for number in range(many):
            feed = f"{'0' * 40} {commit} refs/heads/b{number}\n".encode()
            hooked = subprocess.Popen(
                [hook], env={}, cwd=origin, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, **who
            )  # type: ignore[call-overload]
            hooked.stdin.write(feed)
            hooked.stdin.close()
            running.append(hooked)
        assert {hooked.wait(60) for hooked in running} == {0}
        wait_until(lambda: len(set(_refs(broker))) == many + 1, "all of them at the broker", 120)
        wait_until(lambda: not world.records(), "the empty spool", 60)


def _refs(broker: EmbeddedBroker) -> list[str]:
    found = (decode(frame.headers, frame.body) for frame in broker.sent(SOURCE))
    return [getattr(message, "ref", "") for message in found]
