"""The trusted files, for each message as they are now, and read only when they changed."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from deploykit.errors import KeyFileError
from deploykit.settings.trust import TrustSettings
from deploykit.trust import trustreader
from deploykit.trust.allowed_signers import AllowedSigners
from deploykit.trust.guardedfile import read_bounded
from deploykit.trust.keyfiles import TrustFiles, parse_trusted
from deploykit.trust.trustreader import TrustReader
from tests.support.keys import fixed_key

KEY = fixed_key(1)
OTHER = fixed_key(2)
LINE = f"ops {KEY.public_openssh}\n"


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o644)
    return path


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each time that files were parsed."""
    done: list[int] = []

    def counted(trust: TrustSettings, files: TrustFiles) -> AllowedSigners:
        done.append(1)
        return parse_trusted(trust, files)

    monkeypatch.setattr(trustreader, "parse_trusted", counted)
    return done


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time stamps tell of every change."""
    monkeypatch.setattr(trustreader, "_TICK", 0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Returns what sets the monotonic clock."""
    now = [0.0]
    monkeypatch.setattr("deploykit.trust.trustreader.time.monotonic", lambda: now[0])
    return lambda seconds: now.__setitem__(0, seconds)


def test_files_are_read_again_only_when_they_changed(tmp_path: Path, loads: list[int], settled: None) -> None:
    signers, revoked = written(tmp_path / "signers", LINE), written(tmp_path / "revoked", "")
    trusted = TrustReader(TrustSettings(allowed_signers=signers, revoked_keys=revoked))
    for _ in range(100):
        assert trusted().lines_for(KEY.public_blob)
    assert len(loads) == 1
    written(revoked, KEY.public_openssh)
    assert trusted().is_revoked(KEY.public_blob)
    written(revoked, "")
    signers.chmod(0o666)  # the same bytes
    with pytest.raises(KeyFileError, match="others could add"):
        trusted()
    signers.chmod(0o644)
    assert trusted().lines_for(KEY.public_blob)
    signers.unlink()
    with pytest.raises(KeyFileError, match="No such file"):
        trusted()
    written(signers, LINE)
    assert trusted().lines_for(KEY.public_blob)


def test_no_byte_is_read_for_a_message(tmp_path: Path, settled: None, monkeypatch: pytest.MonkeyPatch) -> None:
    trusted = TrustReader(TrustSettings(allowed_signers=written(tmp_path / "signers", LINE)))
    trusted()
    monkeypatch.setattr(os, "open", lambda *_: pytest.fail("a file was opened"))
    assert trusted().lines_for(KEY.public_blob)


def test_a_key_that_was_revoked_a_moment_ago_counts_no_more(tmp_path: Path) -> None:
    """Whatever the clock of the file system is: the new state is seen by the size or the inode, too."""
    signers, revoked = written(tmp_path / "signers", LINE), written(tmp_path / "revoked", "")
    trusted = TrustReader(TrustSettings(allowed_signers=signers, revoked_keys=revoked))
    assert not trusted().is_revoked(KEY.public_blob)
    revoked.write_text(KEY.public_openssh)
    assert trusted().is_revoked(KEY.public_blob)


def test_a_file_that_changed_under_one_time_stamp_is_seen_at_the_next_look(
    tmp_path: Path, loads: list[int], clock: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It keeps its size, too: only its bytes differ."""
    signers = written(tmp_path / "signers", LINE)
    trusted = TrustReader(TrustSettings(allowed_signers=signers))
    frozen = trusted._state()
    monkeypatch.setattr(trusted, "_state", lambda: frozen)
    # The wall clock stands still, too: a stamp that grew old on a busy machine would be believed.
    now = signers.stat().st_ctime_ns
    monkeypatch.setattr("deploykit.trust.trustreader.time.time_ns", lambda: now)
    assert trusted().lines_for(KEY.public_blob)
    for seconds in (0.1, 0.2, 0.3, 0.6, 0.9):  # looks, which find the same bytes
        clock(seconds)
        trusted()
    assert len(loads) == 1
    signers.write_text(f"ops {OTHER.public_openssh}\n")
    clock(1.2)
    assert trusted().lines_for(OTHER.public_blob)
    assert not trusted().lines_for(KEY.public_blob)
    assert len(loads) == 2


def test_a_file_that_is_written_anew_in_its_place_while_it_is_read_revokes_what_it_says(
    tmp_path: Path, clock: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same list is copied over itself: whole, empty for a moment, whole. No byte differs in the end."""
    signers, revoked = written(tmp_path / "signers", LINE), written(tmp_path / "revoked", KEY.public_openssh)
    states: list[str] = []

    def copied_meanwhile(path: Path, file: int, limit: int) -> bytes:
        data = read_bounded(path, file, limit)
        if path == revoked:
            states.append("")
            revoked.write_text("" if len(states) % 2 else KEY.public_openssh)
        return data

    monkeypatch.setattr("deploykit.trust.guardedfile.read_bounded", copied_meanwhile)
    trusted = TrustReader(TrustSettings(allowed_signers=signers, revoked_keys=revoked))
    trusted()
    monkeypatch.undo()
    revoked.write_text(KEY.public_openssh)
    assert states
    for _ in range(20):  # longer than any time stamp is too young
        if trusted().is_revoked(KEY.public_blob):
            break
        trusted._loaded = None if trusted._loaded is None else attrs.evolve(trusted._loaded, until=0.0)
    assert trusted().is_revoked(KEY.public_blob)


def test_a_file_is_left_alone_once_its_time_stamp_is_old(
    tmp_path: Path, clock: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    signers = written(tmp_path / "signers", LINE)
    trusted = TrustReader(TrustSettings(allowed_signers=signers))
    trusted()
    later = signers.stat().st_ctime_ns + 3 * 10**9
    monkeypatch.setattr("deploykit.trust.trustreader.time.time_ns", lambda: later)
    clock(1.0)
    trusted()
    monkeypatch.setattr(trustreader, "read_trust_files", lambda *_: pytest.fail("the bytes were looked at"))
    clock(1000.0)
    assert trusted().lines_for(KEY.public_blob)


def test_strangers_cannot_have_files_with_mistakes_parsed_for_each_message(
    tmp_path: Path, loads: list[int], clock: Callable[[float], None], settled: None
) -> None:
    signers = written(tmp_path / "signers", "rubbish\nmore\n")
    trusted = TrustReader(TrustSettings(allowed_signers=signers))
    errors = []
    for _ in range(50):
        with pytest.raises(KeyFileError, match="2 mistakes") as caught:
            trusted()
        errors.append(caught.value)
    assert len(loads) == 1
    assert len(set(map(id, errors))) == 50
    assert errors[-1].problems == errors[0].problems
    clock(3.0)
    with pytest.raises(KeyFileError):
        trusted()
    assert len(loads) == 2
    written(signers, LINE)
    assert trusted().lines_for(KEY.public_blob)


def test_threads_that_notice_a_change_at_once_parse_the_files_once(
    tmp_path: Path, loads: list[int], settled: None
) -> None:
    trusted = TrustReader(TrustSettings(allowed_signers=written(tmp_path / "signers", LINE)))
    together = threading.Barrier(8)
    found: list[AllowedSigners] = []

    def ask() -> None:
        together.wait(60)
        found.append(trusted())

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 8
    assert len(loads) == 1


def test_settings_without_files_trust_nobody() -> None:
    assert TrustReader(TrustSettings())() == AllowedSigners()
