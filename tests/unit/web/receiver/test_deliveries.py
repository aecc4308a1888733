"""What was published is remembered, by id and by payload, and forgotten in time."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploykit.errors import WebError
from deploykit.web.receiver.deliveries import DeliveryStore

A, B = b"a" * 32, b"b" * 32


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DeliveryStore]:
    with DeliveryStore(tmp_path / "state" / "deliveries.db") as made:
        yield made


def test_a_delivery_is_found_by_its_id_and_by_its_payload(store: DeliveryStore) -> None:
    assert store.find("forge", "1", A) is None
    store.mark("forge", "1", A, 10.0)
    by_both, by_body, by_id = store.find("forge", "1", A), store.find("forge", "2", A), store.find("forge", "1", B)
    assert by_both is not None
    assert by_both == by_body
    assert (by_both.id, by_both.at, by_both.same_body) == ("1", 10.0, True)
    assert by_id is not None
    assert not by_id.same_body
    assert store.find("forge", "2", B) is None


def test_another_source_is_another_delivery_and_no_id_is_like_no_other(store: DeliveryStore) -> None:
    store.mark("forge", "", A, 10.0)
    assert store.find("other", "", A) is None
    assert store.find("forge", "", B) is None


def test_a_second_mark_changes_nothing(store: DeliveryStore) -> None:
    store.mark("forge", "1", A, 10.0)
    store.mark("forge", "2", A, 20.0)
    found = store.find("forge", "2", A)
    assert found is not None
    assert found.id == "1"
    assert store.find("forge", "2", B) is None


def test_it_outlives_the_process_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "deliveries.db"
    with DeliveryStore(path) as first:
        first.mark("forge", "1", A, 10.0)
    with DeliveryStore(path) as second:
        assert second.find("forge", "1", B) is not None
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_old_ones_are_forgotten_and_the_oldest_of_too_many(store: DeliveryStore) -> None:
    for number in range(10):
        store.mark("forge", str(number), bytes([number]) * 32, float(number))
    assert store.prune(4.0) == 4
    assert store.find("forge", "3", A) is None
    assert store.prune(4.0, most=2) == 4
    assert store.find("forge", "7", A) is None
    assert store.find("forge", "8", A) is not None


def test_a_damaged_file_is_moved_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "deliveries.db"
    path.write_bytes(b"this is no database" * 1000)
    with DeliveryStore(path) as store:
        store.mark("forge", "1", A, 10.0)
    assert (tmp_path / "deliveries.db.damaged").exists()
    assert "is damaged" in caplog.text


def test_another_programs_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "deliveries.db"
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA application_id = 77")
        db.execute("CREATE TABLE theirs (x)")
    db.close()
    with pytest.raises(WebError, match="another program"):
        DeliveryStore(path)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WebError, match=r"deliveries\.db"):
        DeliveryStore(tmp_path / "file" / "deliveries.db")
