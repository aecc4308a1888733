"""The audit log's writer: what was confirmed is on the disk, in one chain, whoever else writes, whatever happened."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from deploykit.audit import AuditLog, open_audit
from deploykit.audit.chain import DAMAGED, ROTATED, TORN, ChainReport
from deploykit.audit.files import beside, old_files, read_head, read_records, verify_files
from deploykit.audit.record import AuditHead, AuditRecord
from deploykit.errors import AuditError
from deploykit.settings import AuditSettings, Settings
from tests.support.disks import full, small_disk


def deny(log: AuditLog, reason: str = "no grant") -> None:
    log.record(actor="ops", action="deploy", target="shop", decision="denied", reason=reason)


def records(path: Path) -> list[AuditRecord]:
    found = []
    for one in read_records(path):
        assert isinstance(one, AuditRecord), one
        found.append(one)
    return found


def whole(path: Path, noted: AuditHead | None = None) -> ChainReport:
    report = verify_files(path, noted=noted)
    assert report.fault is None, report
    return report


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "audit.log"


def test_what_was_recorded_is_there_in_order(path: Path) -> None:
    log = AuditLog(path)
    for n in range(3):
        deny(log, f"reason {n}")
    log.record(
        actor="ops",
        action="deploy",
        target="shop",
        decision="allowed",
        request="r",
        correlation_id="c",
        details={"ref": "refs/tags/v1"},
    )
    found = records(path)
    assert [record.reason for record in found] == ["reason 0", "reason 1", "reason 2", ""]
    assert [record.sequence for record in found] == [1, 2, 3, 4]
    assert dict(found[3].details) == {"ref": "refs/tags/v1"}
    assert whole(path).last == read_head(path) == found[3].head
    assert path.stat().st_mode & 0o777 == 0o640 & ~os.umask(os.umask(0o022))


def test_the_chain_goes_on_in_another_process(path: Path) -> None:
    deny(AuditLog(path))
    deny(AuditLog(path))
    assert whole(path).records == 2


def test_processes_and_threads_append_at_once(path: Path) -> None:
    code = (
        "import sys, threading\nfrom deploykit.audit import AuditLog\n"
        "log = AuditLog(sys.argv[1], max_bytes=8000, keep=99)\n"
        "def work():\n"
        "    for n in range(20): log.record(actor=sys.argv[2], action='a', target='t', decision='denied')\n"
        "threads = [threading.Thread(target=work) for _ in range(2)]\n"
        "[t.start() for t in threads]; [t.join() for t in threads]"
    )
    started = [subprocess.Popen([sys.executable, "-c", code, path, str(n)]) for n in range(3)]
    assert [one.wait(60) for one in started] == [0, 0, 0]
    report = whole(path)
    found = [record.actor for record in records(path)]
    assert [found.count(str(n)) for n in range(3)] == [40, 40, 40]
    assert report.records == 120 + len(old_files(path))


def test_a_full_file_is_rotated_and_the_oldest_are_removed(path: Path) -> None:
    log = AuditLog(path, max_bytes=2000, keep=2)
    for n in range(40):
        deny(log, f"reason {n}")
    assert len(old_files(path)) == 2
    assert all(file.stat().st_size <= 2000 for file in (path, *old_files(path)))
    report = whole(path)
    assert report.first > 1
    assert report.last.sequence == report.first + report.records - 1
    assert "removed by rotation" in report.notes[0]
    assert records(path)[0].action == ROTATED
    old_files(path)[0].unlink()
    assert "a file was removed" in str(verify_files(path).fault)


def test_a_file_that_somebody_removed_stays_a_fault_behind_a_rotation(path: Path) -> None:
    log = AuditLog(path, max_bytes=2000, keep=9)
    while len(old_files(path)) < 2:
        deny(log)
    old_files(path)[0].unlink()
    while len(old_files(path)) < 3:
        deny(log)
    assert "a file was removed" in str(verify_files(path).fault)


def test_a_record_longer_than_a_file_is_written_all_the_same(path: Path) -> None:
    log = AuditLog(path, max_bytes=1, keep=3)
    for n in range(3):
        deny(log, f"reason {n}")
    assert [r.reason for r in records(path) if r.action == "deploy"] == ["reason 0", "reason 1", "reason 2"]
    whole(path)


@pytest.mark.parametrize("rotated", [False, True])
def test_a_line_that_a_crash_cut_off_is_set_aside_and_recorded(path: Path, rotated: bool) -> None:
    log = AuditLog(path)
    deny(log)
    torn = path.read_bytes()[:100] + b"\0\0"
    with path.open("ab") as file:
        file.write(torn)
    assert "incomplete" in whole(path).notes[0]
    deny(AuditLog(path, max_bytes=10 if rotated else 1 << 20), "after")
    assert [record.action for record in records(path)] == ["deploy", TORN, "deploy"]
    assert beside(path, "torn").read_bytes() == torn
    assert "cut off by a crash" in whole(path).notes[0]


def test_a_first_line_that_a_crash_cut_off_is_set_aside(path: Path) -> None:
    AuditLog(path)
    path.write_bytes(b'{"v":1')
    path.chmod(0o640)
    deny(AuditLog(path))
    assert [record.action for record in records(path)] == [TORN, "deploy"]
    whole(path)


def test_a_crash_between_rename_and_new_file_is_made_up_for(path: Path) -> None:
    log = AuditLog(path)
    deny(log)
    path.rename(beside(path, "000000000001"))
    for writer in (log, AuditLog(path)):
        deny(writer)
    assert [record.action for record in records(path)] == ["deploy", ROTATED, "deploy", "deploy"]
    whole(path)


@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize("left", [0, 1, 2])
def test_threat_40_a_cut_off_end_is_found_and_recorded(path: Path, left: int, running: bool) -> None:
    log = AuditLog(path)
    for _ in range(3):
        deny(log)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:left]))
    assert "cut off" in str(verify_files(path).fault)
    deny(log if running else AuditLog(path), "after")
    assert records(path)[-2].action == DAMAGED
    assert records(path)[-1].reason == "after"
    assert verify_files(path).fault is not None, "it stays a fault"


def test_threat_40_a_changed_last_record_is_found_and_recorded(path: Path) -> None:
    log = AuditLog(path)
    deny(log)
    deny(log)
    path.write_bytes(path.read_bytes().replace(b"shop", b"shap"))
    deny(AuditLog(path))
    assert path.read_bytes() != b""
    assert "confirmed records were lost" in str(verify_files(path).fault)
    assert b"shap" in beside(path, "torn").read_bytes()


def test_threat_40_a_log_that_was_removed_is_a_fault(path: Path) -> None:
    log = AuditLog(path)
    deny(log)
    path.unlink()
    assert "cut off" in str(verify_files(path).fault)
    deny(log)
    assert verify_files(path).fault is not None
    assert [record.sequence for record in records(path)] == [2, 3]


def test_a_damaged_end_without_any_record_is_refused(path: Path) -> None:
    deny(AuditLog(path))
    with path.open("ab") as file:
        file.write(b"x" * (1 << 20))
    with pytest.raises(AuditError, match=r"holds no record .*move all of audit\.log\*"):
        AuditLog(path)


def test_a_newer_log_is_not_touched(path: Path) -> None:
    import hashlib

    log = AuditLog(path)
    deny(log)
    line = path.read_bytes()
    covered = line[: line.index(b',"hash"')].replace(b'"v":1', b'"v":2')
    newer = covered + b',"hash":"' + hashlib.sha256(covered).hexdigest().encode() + b'"}\n'
    path.write_bytes(newer)
    with pytest.raises(AuditError, match="format version 2"):
        AuditLog(path)
    with pytest.raises(AuditError, match="format version 2"):
        verify_files(path)
    assert path.read_bytes() == newer


def test_a_head_file_that_is_lost_costs_no_record(path: Path) -> None:
    log = AuditLog(path)
    deny(log)
    beside(path, "head").unlink()
    assert "no head file" in whole(path).notes[0]
    deny(log)
    assert whole(path).notes == ()
    beside(path, "head").write_bytes(b"\0" * 86)
    assert "no head file" in whole(path).notes[0]
    deny(AuditLog(path))
    assert whole(path).notes == ()


def test_a_noted_head_is_compared(path: Path) -> None:
    log = AuditLog(path)
    deny(log)
    noted = read_head(path)
    deny(log)
    whole(path, noted)
    report = verify_files(path, noted=AuditHead(sequence=1, hash="ab" * 32))
    assert "replaced" in str(report.fault)


@pytest.mark.parametrize("place", ["open to others", "a link", "a directory"])
def test_what_is_no_log_of_ours_is_refused_by_name(path: Path, place: str) -> None:
    path.parent.mkdir()
    if place == "open to others":
        path.touch()
        path.chmod(0o666)
    elif place == "a link":
        (path.parent / "target").touch()
        path.symlink_to("target")
    else:
        path.mkdir()
    with pytest.raises(AuditError, match=r"audit\.log"):
        AuditLog(path)


def test_a_lock_that_is_held_is_waited_for_and_then_named(path: Path) -> None:
    log = AuditLog(path, wait=0.05)
    with log._locked():
        other = AuditLog.__new__(AuditLog)
        with pytest.raises(AuditError, match="another process holds"):
            AuditLog.__init__(other, path, wait=0.05)
    deny(log)


def test_a_reader_makes_no_file(path: Path) -> None:
    path.parent.mkdir()
    with pytest.raises(AuditError, match="there is no audit log"):
        verify_files(path)
    assert list(path.parent.iterdir()) == []


def test_readers_while_it_is_written_find_no_fault(path: Path) -> None:
    log = AuditLog(path, max_bytes=3000, keep=2)
    deny(log)

    def write() -> None:
        for _ in range(150):
            deny(log)

    writer = threading.Thread(target=write)
    writer.start()
    looks = 0
    while writer.is_alive() or looks < 3:
        whole(path)
        looks += 1
    writer.join()


@pytest.mark.parametrize("rotate", [False, True])
def test_on_a_full_disk_nothing_is_recorded_and_the_error_names_the_file(tmp_path: Path, rotate: bool) -> None:
    with small_disk(tmp_path / "disk", "size=128k") as disk:
        log = AuditLog(disk / "audit.log", max_bytes=6000 if rotate else 1 << 20)
        for _ in range(9):
            deny(log)
        with full(disk, "bytes"):
            refused = []
            for _ in range(20):  # until the last page is used up
                try:
                    deny(log, "x" * 1000)
                except AuditError as error:
                    refused.append(str(error))
            assert f"cannot write the audit log {disk / 'audit.log'}: No space left" in refused[-1]
            assert "free the disk" in refused[-1]
            before = len(records(disk / "audit.log"))
            with pytest.raises(AuditError):
                deny(log, "x" * 1000)
            assert len(records(disk / "audit.log")) == before
        deny(log, "after")
        found = records(disk / "audit.log")
        assert found[-1].reason == "after"
        assert whole(disk / "audit.log").records == len(found)


def test_the_settings_name_the_file(tmp_path: Path) -> None:
    settings = Settings(node="web1", state=tmp_path)  # type: ignore[arg-type]  # a checked name
    assert open_audit(settings).path == tmp_path / "audit.log"
    other = Settings(node="web1", state=tmp_path, audit=AuditSettings(path=tmp_path / "a"))  # type: ignore[arg-type]
    assert open_audit(other).path == tmp_path / "a"


def test_the_head_is_logged_once_an_hour_if_it_is_another_one(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = AuditLog(path)
    with caplog.at_level(logging.INFO, "deploykit.audit"):
        log.log_head(0)
        assert caplog.messages == []
        deny(log)
        log.log_head(1)
        assert caplog.messages == []
        log.log_head(3600)
        log.log_head(9000)
        deny(log)
        log.log_head(9001)
        log.log_head(13000)
    first, second = (record.head for record in records(path))
    assert caplog.messages == [f"audit head {first}", f"audit head {second}"]


def test_two_daemons_of_one_process_log_a_head_once_and_the_newest_one(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    agent, jenkins = AuditLog(path), AuditLog(path)
    with caplog.at_level(logging.INFO, "deploykit.audit"):
        deny(jenkins)
        deny(agent)
        agent.log_head(0)
        jenkins.log_head(0)  # which wrote the record before
        AuditLog(path).log_head(0)  # HUP
    (*_, last) = (record.head for record in records(path))
    assert caplog.messages == [f"audit head {last}"]


def test_a_head_file_that_was_set_back_is_not_what_the_log_names(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = AuditLog(path)
    deny(log)
    head = path.with_name("audit.log.head")
    older = head.read_bytes()
    deny(log)
    head.write_bytes(older)
    with caplog.at_level(logging.INFO, "deploykit.audit"):
        log.log_head(0)
        head.unlink()
        head.symlink_to("elsewhere")
        log.log_head(3600)
    (*_, last) = (record.head for record in records(path))
    assert caplog.messages == [f"audit head {last}"]
