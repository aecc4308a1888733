"""What `deploykit audit show` chooses, and how times are read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from deploykit.audit import AuditLog
from deploykit.errors import UsageError
from deploykit.operations.audit import choose, line_of, parse_since, shown

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    at = [NOW]
    log = AuditLog(tmp_path / "audit.log", max_bytes=1500, now=lambda: at[0])
    for n in range(10):
        at[0] = NOW + timedelta(minutes=n)
        site = "shop" if n % 2 else "blog"
        log.record(actor="ops", action="deploy", target=site, decision="allowed" if n < 5 else "denied", reason=str(n))
    return log.path


def reasons(path: Path, **chosen: object) -> list[str]:
    found = choose(path, **chosen).records  # type: ignore[arg-type]  # as each test gives it
    return [record.reason for record in found if record.actor == "ops"]


def test_records_of_all_files_are_chosen(path: Path) -> None:
    assert reasons(path) == list("0123456789")
    assert reasons(path, since=NOW + timedelta(minutes=8)) == ["8", "9"]
    assert reasons(path, decision="denied", target="shop") == ["5", "7", "9"]
    assert reasons(path, last=3, decision="allowed", target="blog") == ["0", "2", "4"]
    assert reasons(path, last=2, target="shop") == ["7", "9"]


def test_a_line_that_is_no_record_is_named_and_passed_over(path: Path) -> None:
    path.write_bytes(b"rubbish\n" + path.read_bytes())
    chosen = choose(path)
    assert chosen.unreadable[0].startswith("audit.log, line 1: ")
    assert chosen.records[-1].reason == "9"


def test_a_record_is_one_line(path: Path) -> None:
    assert line_of(choose(path, target="shop", last=1).records[0]) == (
        "2026-01-31 12:09:00Z  denied   deploy  shop  by ops: 9"
    )


def test_a_line_shows_no_more_of_fingerprints_and_commits_than_people_need(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.log", now=lambda: NOW)
    commit = "66a1989c1982116820c2f45449ea0a78f7406798"
    signer = "ops@example.org (SHA256:N8kJE/twbIUZvQfLd66hpuK2nVkMOFKW8HxC1rfEIFU)"
    log.record(actor=signer, action="deploy", target="shop", decision="allowed", details={"commit": commit})
    event = {"event": f"[shop] refs/heads/main {commit}"}
    log.record(actor="unverified", action="build", target="ci/tests", decision="allowed", details=event)
    first, second = choose(log.path).records
    assert line_of(first) == (
        "2026-01-31 12:00:00Z  allowed  deploy  shop  by ops@example.org (SHA256:N8kJE/twbIUZ…)  66a1989c1982"
    )
    assert line_of(second) == (
        "2026-01-31 12:00:00Z  allowed  build  ci/tests  by unverified  [shop] refs/heads/main 66a1989c1982"
    )
    assert (shown(first)["actor"], shown(second)["details"]) == (signer, event)
    assert parse_since(line_of(first)[:20], NOW) == NOW


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30m", NOW - timedelta(minutes=30)),
        ("2h", NOW - timedelta(hours=2)),
        ("7d", NOW - timedelta(days=7)),
        ("999999999w", datetime.min.replace(tzinfo=UTC)),
        ("2026-01-31T12:00+00:00", NOW),
        ("2026-01-31T13:00+01:00", NOW),
    ],
)
def test_a_time_is_read(text: str, expected: datetime) -> None:
    assert parse_since(text, NOW) == expected


@pytest.mark.parametrize("text", ["", "yesterday", "2", "-2h"])
def test_what_is_no_time_is_refused_with_the_way_out(text: str) -> None:
    with pytest.raises(UsageError, match="30m, 2h or 7d"):
        parse_since(text, NOW)
