"""A put: durable in one step, what was put comes out as it was, and modes that no umask decides."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deploykit.errors import OutboxError
from deploykit.outbox import Outbox, Outgoing
from deploykit.outbox.format import MAX_BODY
from deploykit.wire.frame import Frame
from tests.support.spools import A, B, bodies, frame, mode_of, the_file

# -- putting ---------------------------------------------------------------------------------------------------------


def test_what_was_put_comes_out_as_it_was(outbox: Outbox) -> None:
    headers = {
        "subject": "[repo] 2 caf\xe9 \N{PARTY POPPER}",
        "content-type": "application/cloudevents+json",
        "empty": "",
    }
    body = bytes(range(256))
    record_id = outbox.put("/topic/a b", Frame(headers, body))
    (record,) = outbox.pending()
    assert (record.id, record.destination, record.frame) == (record_id, "/topic/a b", Frame(headers, body))
    assert (record.uid, record.number, record.of, record.state) == (os.geteuid(), 1, 1, "waiting")
    assert abs(record.queued - time.time()) < 60


def test_a_push_is_one_file_in_the_order_given(outbox: Outbox, spool: Path) -> None:
    ids = outbox.put_many([Outgoing(A, frame("1")), Outgoing(B, frame("2")), Outgoing(A, frame("3"))])
    assert [(r.id, r.destination, r.frame.body) for r in outbox.pending()] == [
        (ids[0], A, b"1"),
        (ids[1], B, b"2"),
        (ids[2], A, b"3"),
    ]
    assert len(list(spool.glob("*.rec"))) == 1


def test_an_empty_push_leaves_nothing(outbox: Outbox, spool: Path) -> None:
    assert outbox.put_many([]) == ()
    assert list(spool.glob("*.rec")) == []


def test_a_push_is_on_the_disk_before_put_returns(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    # File contents before the name, the name before the return.
    steps: list[str] = []
    real = {name: getattr(os, name) for name in ("fsync", "rename")}

    def fsync(fd: int) -> None:
        steps.append("fsync directory" if stat.S_ISDIR(os.fstat(fd).st_mode) else "fsync file")
        real["fsync"](fd)

    def rename(*args: object, **kwargs: object) -> None:
        steps.append("rename")
        real["rename"](*args, **kwargs)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    outbox.put_many(Outgoing(A, frame(str(n))) for n in range(100))
    assert steps == ["fsync file", "rename", "fsync directory"]


@pytest.mark.parametrize("step", ["write", "fsync", "rename"])
def test_a_failed_put_reports_it_and_leaves_nothing(
    outbox: Outbox, spool: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    outbox.put(A, frame("before"))
    before = sorted(spool.iterdir())

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, step, fail)
        with pytest.raises(OutboxError, match=r"cannot write to spool .*No space left.*df -i") as caught:
            outbox.put(A, frame("lost"))
    assert str(spool) in str(caught.value)
    assert sorted(spool.iterdir()) == before
    assert bodies(outbox) == ["before"]


def test_a_directory_that_cannot_be_synced_is_no_success(
    outbox: Outbox, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync

    def fsync(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(5, "Input/output error")
        real(fd)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(OutboxError, match="Input/output error"):
            outbox.put(A, frame("lost"))
    assert bodies(outbox) == [], "what was reported lost must not be sent"


@pytest.mark.parametrize(
    ("destination", "sent", "says"),
    [
        ("", frame(), "has no destination"),
        ("/topic/a\nreceipt:1", frame(), "line end"),
        (A, frame(evil="x\r\ny"), "'evil'"),
        (A, frame(evil="x\0"), "'evil'"),
        (A, frame(evil="\ud800"), "'evil'"),
        (A, Frame({}, b"x" * (MAX_BODY + 1)), "too big"),
        (A, frame(huge="x" * 8193), "8192 bytes"),
        (A, frame(**{f"h{n}": "x" * 1000 for n in range(9)}), "8192 bytes"),
        (A, Frame({"number": 1}, b""), "not text"),  # type: ignore[dict-item]
    ],
)
def test_what_could_never_be_sent_is_refused_where_it_is_made(
    outbox: Outbox, destination: str, sent: Frame, says: str
) -> None:
    with pytest.raises(OutboxError, match=says):
        outbox.put_many([Outgoing(A, frame("good")), Outgoing(destination, sent)])
    assert bodies(outbox) == [], "all or nothing"


def test_an_error_never_shows_a_header_or_a_body(outbox: Outbox) -> None:
    with pytest.raises(OutboxError) as caught:
        outbox.put(A, Frame({"password": "canary-1\n"}, b"canary-2"))
    assert "canary" not in str(caught.value) + repr(caught.value)
    assert "canary-2" not in repr(Outgoing(A, Frame({}, b"canary-2")))


# -- modes (threat 27) -----------------------------------------------------------------------------------------------


def test_threat_27_a_new_spool_is_3770_and_its_records_cannot_be_written_by_the_group(
    outbox: Outbox, spool: Path
) -> None:
    os.umask(os.umask(0o077))
    outbox.put(A, frame())
    assert mode_of(spool) == mode_of(spool / "dead") == mode_of(spool / "bad") == 0o3770
    assert mode_of(the_file(outbox)) == 0o640


def test_threat_27_a_private_spool_shows_nothing_to_the_group(tmp_path: Path) -> None:
    private = Outbox(tmp_path / "own", shared=False)
    private.put(A, frame())
    assert mode_of(Path(private.path)) == 0o700
    assert mode_of(the_file(private)) == 0o600
    assert bodies(private) == ["x"]


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
def test_threat_27_modes_do_not_depend_on_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        box = Outbox(tmp_path / "spool")
        box.put(A, frame())
    finally:
        os.umask(before)
    assert mode_of(Path(box.path)) == 0o3770
    assert mode_of(the_file(box)) == 0o640


@pytest.mark.parametrize("mode", [0o3777, 0o1777, 0o3775, 0o2770, 0o1770, 0o770, 0o755])
def test_threat_27_a_looser_directory_is_refused_with_the_way_out(outbox: Outbox, spool: Path, mode: int) -> None:
    spool.chmod(mode)
    for act in (lambda: outbox.put(A, frame()), lambda: list(outbox.pending()), lambda: Outbox(spool)):
        with pytest.raises(OutboxError, match=f"mode {mode:04o}.*chmod 3770 {spool}"):
            act()
    assert list(spool.glob("*.rec")) == []


def test_a_missing_parent_is_made_and_a_missing_spool_is_not_when_told_so(tmp_path: Path) -> None:
    assert Path(Outbox(tmp_path / "a" / "b").path).is_dir()
    with pytest.raises(OutboxError, match="owned by the relay's user, mode 3770"):
        Outbox(tmp_path / "c", create=False)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutboxError, match="Not a directory"):
        Outbox(tmp_path / "file" / "spool")
    with pytest.raises(OutboxError, match="no group 'no-such-group'"):
        Outbox(tmp_path / "d", group="no-such-group")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "file"], "nothing half-made is left"


# -- the path of a push ----------------------------------------------------------------------------------------------


def loaded_by(code: str, *args: str) -> set[str]:
    """The modules that a bare interpreter loads for `code`."""
    script = f"import sys; sys.path[:0] = {sys.path!r}; bare = set(sys.modules)\n{code}\n"
    script += "print(*sorted(set(sys.modules) - bare))"
    done = subprocess.run([sys.executable, "-S", "-c", script, *args], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_a_push_does_not_pay_for_what_it_does_not_use(tmp_path: Path) -> None:
    Outbox(tmp_path / "spool")
    encode = "from deploykit.wire import Frame, encode\n"
    put = "from deploykit.outbox import Outbox, Outgoing\n"
    put += "Outbox(sys.argv[1]).put_many([Outgoing('/topic/a', Frame({}, b'x'))])"
    loaded = loaded_by(encode + put, str(tmp_path / "spool"))
    heavy = {
        *("cattrs", "tenacity", "stomp", "dulwich", "click", "rich", "cryptography", "asyncio", "ssl", "socket"),
        *("subprocess", "tempfile", "ctypes", "sqlite3", "concurrent", "email", "http", "deploykit.bus"),
    }
    assert heavy.isdisjoint(loaded), sorted(heavy & loaded)
    ours = loaded - loaded_by(encode)
    assert ours == {
        *("errno", "zlib", "deploykit.outbox", "deploykit.outbox.format", "deploykit.outbox.keys"),
        *("deploykit.outbox.directory", "deploykit.outbox.notify", "deploykit.outbox.spool"),
    }
