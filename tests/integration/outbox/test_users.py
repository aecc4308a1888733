"""One spool, several UNIX users: real ones, by setuid. Nobody can take, change or hide another's record."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import deploykit
from deploykit.outbox import Outbox
from deploykit.wire.frame import Frame
from tests.support.needs import missing

#: Numbers are enough for the kernel; nobody has these.
DAEMON, ALICE, BOB, OUTSIDER = 64101, 64102, 64103, 64104
GROUP = 64200

# Everything is imported before the user is changed: an interpreter in root's home cannot be read by others.
PRELUDE = """
import contextlib, datetime, fcntl, grp, os, pathlib, pwd, stat, sys, time, traceback
import deploykit.outbox.reader, deploykit.outbox.removal, deploykit.outbox.listener, deploykit.outbox.record
from deploykit.outbox import Outbox, Outgoing, RelayLock
from deploykit.errors import *
from deploykit.wire.frame import Frame
from deploykit.testing.fakes import FakeBus
from deploykit.outbox.relay import Relay
uid, groups, spool = int(sys.argv[1]), [int(g) for g in sys.argv[2].split()], sys.argv[3]
del sys.argv[1:3]
os.umask(0o022)
os.setgroups(groups); os.setgid(uid); os.setuid(uid)
assert os.getresuid() == (uid, uid, uid)
def put(*texts):
    for text in texts:
        Outbox(spool).put("/topic/a", Frame({}, text.encode()))
def bodies(**options):
    return [r.frame.body.decode() for r in Outbox(spool).pending(**options)]
def drain(bus=None):
    bus = bus or FakeBus()
    report = Relay(Outbox(spool), bus, max_attempts=1).drain_once(10)
    return report, [b.decode() for b in bus.bodies]
def attempt(action):
    try:
        action()
    except OSError as error:
        return type(error).__name__
    return "done"
"""


def as_user(uid: int, code: str, *args: object, groups: tuple[int, ...] = (GROUP,)) -> str:
    """Run Python as `uid`, a member of `groups`; return what it printed."""
    done = _start(uid, code, *args, groups=groups)
    out, err = done.communicate(timeout=60)
    assert done.returncode == 0, err
    return out.strip()


def _start(uid: int, code: str, *args: object, groups: tuple[int, ...] = (GROUP,)) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(code), str(uid), " ".join(map(str, groups)), *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd="/",
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(deploykit.__file__).parents[1])},
    )


@pytest.fixture(scope="module", autouse=True)
def _root() -> None:
    if os.geteuid() != 0:
        missing("root, to become other users")


@pytest.fixture
def spool() -> Iterator[Path]:
    """A spool of the daemon's user, in a place that everybody can reach."""
    place = Path(tempfile.mkdtemp(prefix="deploykit-users-"))
    place.chmod(0o755)
    path = place / "spool"
    try:
        os.chown(place, DAEMON, GROUP)
        as_user(DAEMON, f"Outbox(spool, group={GROUP})", path)
        yield path
    finally:
        shutil.rmtree(place)


def records(spool: Path) -> list[Path]:
    return sorted(spool.glob("*.rec"))


def test_every_user_of_the_group_queues_and_the_daemon_sends_all_in_order(spool: Path) -> None:
    for n, user in enumerate([ALICE, BOB, DAEMON, ALICE, BOB]):
        as_user(user, "put(sys.argv[2])", spool, n)
    for path, user in zip(records(spool), [ALICE, BOB, DAEMON, ALICE, BOB], strict=True):
        found = path.stat()
        assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (user, GROUP, 0o640)
    assert as_user(DAEMON, "print(*drain()[1])", spool) == "0 1 2 3 4"
    assert records(spool) == []


def test_who_is_not_in_the_group_is_told_what_to_do(spool: Path) -> None:
    code = """
    for act in (lambda: put("x"), lambda: bodies()):
        try:
            act()
        except OutboxError as error:
            print(error)
    """
    lines = as_user(OUTSIDER, code, spool, groups=()).splitlines()
    assert len(lines) == 2
    assert all("Permission denied" in line and "add this user to the group" in line for line in lines)


def test_nobody_deletes_moves_cuts_or_replaces_anothers_record(spool: Path) -> None:
    as_user(ALICE, "put('hers')", spool)
    (record,) = records(spool)
    code = """
    name = sys.argv[2]
    print(attempt(lambda: os.unlink(name)))
    print(attempt(lambda: os.rename(name, name + ".moved")))
    print(attempt(lambda: open(name, "ab")))
    print(attempt(lambda: os.truncate(name, 0)))
    print(attempt(lambda: os.chmod(name, 0o600)))
    open(spool + "/mine", "w").close()
    print(attempt(lambda: os.rename(spool + "/mine", name)))
    """
    assert set(as_user(BOB, code, spool, record).splitlines()) == {"PermissionError"}
    assert as_user(DAEMON, "print(*drain()[1])", spool) == "hers"


def test_a_user_drops_and_relays_its_own_records_only(spool: Path) -> None:
    as_user(ALICE, "put('a1')", spool)
    as_user(BOB, "put('b1', 'b2')", spool)
    as_user(ALICE, "put('a2')", spool)
    assert as_user(ALICE, "print(*bodies()); print(*bodies(everyone=True))", spool) == "a1 a2\na1 b1 b2 a2"
    code = """
    hers = next(r for r in Outbox(spool).pending(everyone=True) if r.frame.body == b"a1")
    try:
        Outbox(spool).ack(hers)
    except OutboxError as error:
        print(error)
    """
    assert "only the owner of the spool or of the record" in as_user(BOB, code, spool)
    assert as_user(BOB, "report, sent = drain(); print(*sent, report.complete)", spool) == "b1 b2 True"
    assert as_user(DAEMON, "print(*drain()[1])", spool) == "a1 a2"


def test_a_users_relay_buries_its_own_and_the_daemon_can_queue_it_again(spool: Path) -> None:
    as_user(ALICE, "put('bad')", spool)
    code = "report, _ = drain(FakeBus(lambda _: PublishRefused('no'))); print(len(report.dead_letters))"
    assert as_user(ALICE, code, spool) == "1"
    assert as_user(BOB, "print([attempt(lambda: os.unlink(f'{spool}/dead/{n}')) for n in os.listdir(spool + '/dead')])",
                   spool) == "['PermissionError']"  # fmt: skip
    assert as_user(DAEMON, "box = Outbox(spool); [box.retry(r) for r in box.dead()]; print(*bodies())", spool) == "bad"


def test_the_daemon_buries_a_record_of_anybody(spool: Path) -> None:
    as_user(ALICE, "Outbox(spool).put_many(Outgoing('/topic/a', Frame({}, t)) for t in (b'1', b'bad', b'3'))", spool)
    code = """
    bus = FakeBus(lambda sent: PublishRefused("no") if sent.frame.body == b"bad" else None)
    report, sent = drain(bus)
    print(report.sent, [d.reason for d in Outbox(spool).dead()])
    """
    assert as_user(DAEMON, code, spool).startswith("2 ['no")
    assert records(spool) == []


def test_a_strangers_marks_do_not_drop_a_record(spool: Path) -> None:
    as_user(ALICE, "Outbox(spool).put_many(Outgoing('/topic/a', Frame({}, t)) for t in (b'1', b'2'))", spool)
    (record,) = records(spool)
    forge = "open(sys.argv[2], 'wb').write(b'deploykit-done 1\\nxx')"
    as_user(BOB, forge, spool, record.with_suffix(".done"))
    as_user(BOB, forge, spool, record.with_suffix(".mine"))
    assert as_user(ALICE, "print(*bodies())", spool) == "1 2"
    assert as_user(DAEMON, "print(*drain()[1])", spool) == "1 2"
    assert list(spool.glob("[0-9]*")) == []


def test_the_daemon_goes_on_where_a_users_relay_was_cut_off_in_the_middle_of_a_push(spool: Path) -> None:
    as_user(
        ALICE, "Outbox(spool).put_many(Outgoing('/topic/a', Frame({}, t)) for t in (b'1', b'2', b'3', b'4'))", spool
    )
    as_user(ALICE, "box = Outbox(spool); box.ack(next(box.pending()))", spool)
    assert as_user(DAEMON, "box = Outbox(spool); box.ack(next(box.pending())); print(*bodies())", spool) == "3 4"
    assert as_user(ALICE, "box = Outbox(spool); box.ack(next(box.pending())); print(*bodies())", spool) == "4"
    assert as_user(DAEMON, "print(*drain()[1])", spool) == "4"
    assert list(spool.glob("[0-9]*")) == []


def test_what_a_member_leaves_lying_about_does_not_stop_the_daemon(spool: Path) -> None:
    litter = """
    os.symlink("/etc/passwd", spool + "/" + "0" * 20 + "-00000000.rec")
    os.mkfifo(spool + "/" + "0" * 20 + "-00000001.rec")
    unreadable = spool + "/" + "0" * 20 + "-00000002.rec"
    open(unreadable, "w").close(); os.chmod(unreadable, 0)
    os.mkdir(spool + "/a directory")
    os.symlink("/nowhere", spool + "/.relay.lock")
    open(spool + "/.wake", "w").close()
    put("good")
    put("better")
    """
    as_user(BOB, litter, spool)
    assert as_user(DAEMON, "print(*drain()[1])", spool) == "good better"
    assert len(list((spool / "bad").iterdir())) >= 3
    assert as_user(DAEMON, "print(bodies())", spool) == "[]"


PLACES = {
    "link": "os.symlink(sys.argv[3], spool + '/' + name)",
    "file": "open(spool + '/' + name, 'w').close()",
    "fifo": "os.mkfifo(spool + '/' + name)",
    "directory": "os.mkdir(spool + '/' + name)",
    "full directory": "os.makedirs(spool + '/' + name + '/in/it')",
    "open file": "open(spool + '/' + name, 'w').close(); os.chmod(spool + '/' + name, 0o666)",
}


@pytest.mark.parametrize("kind", PLACES)
@pytest.mark.parametrize("relay", [DAEMON, 0])
def test_nothing_that_a_member_puts_in_the_place_of_something_of_ours_holds_up_a_message(
    spool: Path, kind: str, relay: int
) -> None:
    """A spool as docs/outbox.md says to make it, without folders: the member was there first, with all our names."""
    for folder in ("dead", "bad"):
        (spool / folder).rmdir()
    elsewhere = spool.parent / "elsewhere"
    elsewhere.mkdir()
    os.chown(elsewhere, DAEMON, GROUP)
    as_user(ALICE, "put('hers')", spool)
    squat = f"""
    boot = open("/proc/sys/kernel/random/boot_id").read().strip()
    stem = [n for n in os.listdir(spool) if n.endswith(".rec")][0][:-4]
    for name in ("dead", "bad", ".wake", ".relay.lock", stem + ".done", stem + ".mine", ".clock-other", ".tmp-x"):
        {PLACES[kind]}
    Outbox(spool).put("/topic/a", Frame({{"destination": "/queue/b"}}, b"never"))
    open(spool + "/" + "0" * 20 + "-00000000.rec", "w").close()
    put("his")
    """
    as_user(BOB, squat, spool, "x", elsewhere)
    start = time.monotonic()
    many = "print(*drain()[1]); print([d.reason for d in Outbox(spool).dead()])"
    sent, dead = as_user(relay, many, spool).splitlines()
    assert sent == "hers his"
    assert "belong to the connection" in dead
    assert time.monotonic() - start < 20
    assert list(elsewhere.iterdir()) == []
    for folder in ("dead", "bad"):
        found = (spool / folder).lstat()
        assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o3770, DAEMON, GROUP)
    # Once more: what could not be removed is out of the way, and stays so without a word.
    assert as_user(relay, "put('again'); print(*drain()[1])", spool) == "again"


def test_a_member_in_the_place_of_another_members_fifo_does_not_stop_its_relay(spool: Path) -> None:
    as_user(ALICE, "put('hers')", spool)
    as_user(BOB, f"open(spool + '/.wake-{ALICE}', 'w').close()", spool)
    assert as_user(ALICE, "print(*drain()[1])", spool) == "hers"


@pytest.mark.parametrize("kind", PLACES)
def test_a_member_in_the_place_of_another_members_lock_is_named_and_the_owners_relay_takes_it_away(
    spool: Path, kind: str
) -> None:
    """The lock of the directory instead would be one that any member can hold, and beside which a relay may be."""
    as_user(ALICE, "put('hers'); drain(); put('hers')", spool)
    (spool / f".relay-{ALICE}.lock").unlink()
    (spool / f".wake-{ALICE}").unlink()
    squat = f"""
    for name in (".relay-{ALICE}.lock", ".wake-{ALICE}"):
        {PLACES[kind]}
    """
    as_user(BOB, squat, spool, "x", "/etc/passwd")
    code = """
    try:
        print(*drain()[1])
    except OutboxError as error:
        print(type(error).__name__, error)
    """
    said = as_user(ALICE, code, spool)
    assert said.startswith("OutboxError"), said
    assert f".relay-{ALICE}.lock belongs to another user" in said
    as_user(BOB, "put('his'); drain()", spool)
    assert as_user(DAEMON, "print(*drain()[1])", spool) == "hers"
    as_user(ALICE, "put('again')", spool)
    assert as_user(ALICE, code, spool) == "again"
    assert (spool / f".relay-{BOB}.lock").exists(), "a user's own is left alone"


def test_a_member_who_holds_leases_on_files_in_the_place_of_ours_holds_up_nobody(spool: Path) -> None:
    """An open that would have to break somebody else's lease ends with EAGAIN, as a lock that is taken does."""
    as_user(ALICE, "put('hers')", spool)
    hold = """
    held = []
    for name in (".relay.lock", ".wake", "0" * 20 + "-00000000.rec"):
        held.append(os.open(spool + "/" + name, os.O_RDWR | os.O_CREAT, 0o640))
        fcntl.fcntl(held[-1], fcntl.F_SETLEASE, fcntl.F_WRLCK)
    print("holding", flush=True)
    time.sleep(600)
    """
    holder = _start(BOB, hold, spool)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "holding\n"
        assert as_user(DAEMON, "print(*drain()[1])", spool) == "hers"
    finally:
        holder.kill()
        holder.communicate()


def test_a_member_who_writes_to_the_fifo_without_end_does_not_keep_the_daemon_there(spool: Path) -> None:
    daemon = _start(
        DAEMON,
        """
        box = Outbox(spool)
        with RelayLock(spool):
            box.wait(0)
            print("listening", flush=True)
            for _ in range(50):
                box.wait(5)
            print("free", flush=True)
        """,
        spool,
    )
    flood = """
    fifo = os.open(spool + "/.wake", os.O_WRONLY)
    while True:
        os.write(fifo, b"x" * 65536)
    """
    try:
        assert daemon.stdout is not None
        assert daemon.stdout.readline() == "listening\n"
        flooder = _start(BOB, flood, spool)
        try:
            assert daemon.stdout.readline() == "free\n"
        finally:
            flooder.kill()
            flooder.communicate()
    finally:
        daemon.kill()
        daemon.communicate()


def test_a_record_of_another_group_is_set_aside(spool: Path) -> None:
    as_user(ALICE, "put('x')", spool)
    os.chown(records(spool)[0], -1, OUTSIDER)
    assert as_user(0, "print(drain()[1], [a.reason for a in Outbox(spool).set_aside()])", spool) == (
        "[] ['it belongs to another group than the spool']"
    )


@pytest.mark.parametrize("relay", [DAEMON, 0])
def test_a_member_cannot_pose_as_the_relay_or_hold_its_lock(spool: Path, relay: int) -> None:
    pose = """
    os.mkfifo(spool + "/.wake"); os.chmod(spool + "/.wake", 0o666); fifo = os.open(spool + "/.wake", os.O_RDWR)
    lock = os.open(spool + "/.relay.lock", os.O_RDWR | os.O_CREAT, 0o600); fcntl.flock(lock, fcntl.LOCK_EX)
    print("posing", flush=True)
    time.sleep(600)
    """
    poser = _start(BOB, pose, spool)
    try:
        assert poser.stdout is not None
        assert poser.stdout.readline() == "posing\n"
        assert as_user(ALICE, "put('x'); print(Outbox(spool).relay_listens())", spool) == "False"
        assert as_user(relay, "print(*drain()[1])", spool) == "x"
    finally:
        poser.kill()
        poser.communicate()


LISTEN = """
box = Outbox(spool)
with RelayLock(spool):
    box.wait(0)
    print("listening", flush=True)
    while not box.wait(60): pass
    print("woken", flush=True)
"""


def test_a_put_by_any_member_wakes_the_daemon(spool: Path) -> None:
    daemon = _start(DAEMON, LISTEN, spool)
    try:
        assert daemon.stdout is not None
        assert daemon.stdout.readline() == "listening\n"
        assert as_user(ALICE, "put('x'); print(Outbox(spool).relay_listens())", spool) == "True"
        assert daemon.stdout.readline() == "woken\n"
    finally:
        daemon.kill()
        daemon.communicate()


def test_a_users_relay_gives_way_to_the_daemon(spool: Path) -> None:
    daemon = _start(DAEMON, LISTEN.replace("while not box.wait(60): pass", "time.sleep(600)"), spool)
    try:
        assert daemon.stdout is not None
        assert daemon.stdout.readline() == "listening\n"
        as_user(ALICE, "put('x')", spool)
        assert as_user(ALICE, "report, sent = drain(); print(sent, report.complete)", spool) == "[] False"
        assert len(records(spool)) == 1
    finally:
        daemon.kill()
        daemon.communicate()


def test_root_sends_everybodys_and_leaves_the_spool_to_its_owner(spool: Path) -> None:
    as_user(ALICE, "put('a')", spool)
    box = Outbox(spool)
    box.put("/topic/a", Frame({}, b"r"))
    assert as_user(0, "print(*drain()[1])", spool) == "a r"
    as_user(ALICE, "put('a2')", spool)
    assert as_user(DAEMON, "print(*drain()[1])", spool) == "a2", "root's lock and FIFO are no obstacle"


def test_what_root_puts_into_a_users_own_spool_can_be_sent_by_that_user(spool: Path) -> None:
    private = spool.parent / "private"
    as_user(DAEMON, "Outbox(spool, shared=False)", private)
    as_user(0, "Outbox(spool).put_many(Outgoing('/topic/a', Frame({}, t)) for t in (b'1', b'2'))", private)
    as_user(0, "box = Outbox(spool); box.ack(next(box.pending()))", private)
    assert as_user(DAEMON, "print(*drain()[1])", private) == "2"


def test_a_spool_for_one_user_takes_no_record_of_another(spool: Path) -> None:
    private = spool.parent / "private"
    as_user(DAEMON, "Outbox(spool, shared=False).put('/topic/a', Frame({}, b'mine'))", private)
    (record,) = records(private)
    planted = record.with_name("0" * 20 + "-00000000.rec")
    shutil.copy(record, planted)
    os.chown(planted, BOB, GROUP)
    assert as_user(DAEMON, "print(*drain()[1])", private) == "mine"
    assert planted.name in [p.name for p in (private / "bad").iterdir()]
