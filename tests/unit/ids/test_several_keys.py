"""Ids that several keys signed: claimed for all of them in one step, and known by each of them."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from deploykit.errors import IdForgotten, IdStoreError, UsageError
from deploykit.ids import Claim, IdStore

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
EXPIRY = NOW + timedelta(minutes=10)
ANN, BOB, BODY = "SHA256:ann", "SHA256:bob", "body:00ff"
BOTH = (ANN, BOB, BODY)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[IdStore]:
    with IdStore(tmp_path / "ids.sqlite") as opened:
        yield opened


def test_threat_44_a_copy_in_another_order_or_with_one_signature_less_is_known(store: IdStore) -> None:
    assert store.claim(BOTH, "1", b"d", NOW) is Claim.FRESH
    for keys in itertools.permutations(BOTH):
        assert store.claim(keys, "1", b"d", NOW) is Claim.RESUME
    store.done(BOTH, "1", b"reply", NOW)
    for keys in (BOTH, (ANN,), (BOB,), (BODY,), ("SHA256:eve", "SHA256:zoe", BODY)):
        assert store.claim(keys, "1", b"d", NOW) is Claim.DONE
        assert store.reply(keys, "1") == b"reply"


def test_threat_44_a_key_that_is_added_to_what_is_done_does_not_do_it_again_alone(store: IdStore) -> None:
    store.claim(ANN, "1", b"d", NOW)
    store.done(ANN, "1", b"reply", NOW)
    assert store.claim(BOTH, "1", b"d", NOW) is Claim.DONE
    assert store.claim(BOB, "1", b"d", NOW) is Claim.DONE
    assert store.reply(BOB, "1") == b"reply"


def test_a_key_that_is_added_to_what_is_claimed_is_judged_by_the_first_claim(store: IdStore) -> None:
    store.claim(ANN, "1", b"d", NOW)
    later = NOW + timedelta(minutes=5)
    assert store.claimed_at(BOTH, "1") == NOW
    assert store.claimed_at((BOB, BODY), "1") is None
    assert store.claim(BOTH, "1", b"d", later) is Claim.RESUME
    assert store.claimed_at(BOB, "1") == NOW


def test_other_bytes_for_one_of_the_keys_are_a_conflict_and_claim_nothing(store: IdStore) -> None:
    store.claim(BOB, "1", b"other", NOW)
    assert store.claim(BOTH, "1", b"d", NOW) is Claim.CONFLICT
    assert store.claimed_at((ANN, BODY), "1") is None
    store.claim(ANN, "1", b"d", NOW)
    store.done(ANN, "1", b"reply", NOW)
    assert store.claim(BOTH, "1", b"d", NOW) is Claim.CONFLICT, "graver than done"


def test_done_is_graver_than_claimed(store: IdStore) -> None:
    store.claim(ANN, "1", b"d", NOW)
    store.claim(BOB, "1", b"d", NOW)
    store.done(BOB, "1", b"reply", NOW)
    assert store.claim(BOTH, "1", b"d", NOW) is Claim.DONE


def test_an_id_must_be_claimed_for_every_key_that_is_done(store: IdStore) -> None:
    store.claim(ANN, "1", b"d", NOW)
    with pytest.raises(IdStoreError, match="never claimed"):
        store.done(BOTH, "1", b"reply", NOW)
    assert store.claim(ANN, "1", b"d", NOW) is Claim.RESUME, "one transaction: nothing is half done"
    with pytest.raises(UsageError, match="no key"):
        store.claim((), "1", b"d", NOW)


def test_a_claim_that_fails_between_two_keys_leaves_none(store: IdStore) -> None:
    with sqlite3.connect(store.path) as other:
        other.execute(
            "CREATE TRIGGER full BEFORE INSERT ON ids WHEN new.key = 'SHA256:bob'"
            " BEGIN SELECT RAISE(FAIL, 'the disk is full'); END"
        )
    other.close()
    with pytest.raises(IdStoreError, match="disk is full"):
        store.claim(BOTH, "1", b"d", NOW)
    assert store.claimed_at(BOTH, "1") is None


def test_what_was_forgotten_for_all_keys_is_refused_and_what_one_remembers_is_not(store: IdStore) -> None:
    store.claim(ANN, "1", b"d", NOW, keep_until=EXPIRY)
    later = EXPIRY + timedelta(days=1, seconds=1)
    assert store.prune(later) == 1
    with pytest.raises(IdForgotten):
        store.claim(BOTH, "1", b"d", later, keep_until=EXPIRY)
    assert store.claim(BOB, "2", b"d", later, keep_until=later) is Claim.FRESH
    assert store.claim(BOTH, "2", b"d", later, keep_until=EXPIRY) is Claim.RESUME
