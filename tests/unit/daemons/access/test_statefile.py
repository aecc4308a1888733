"""The state file of the access daemon: what goes in comes out, and damage is an error that names the file."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from deploykit.daemons.access.statefile import (
    AccessEntry,
    AccessState,
    SiteEntries,
    decode_state,
    encode_state,
    read_state,
    state_path,
    write_state,
)
from deploykit.errors import AccessError
from deploykit.names import SiteName

UNTIL = datetime(2026, 12, 31, tzinfo=UTC)
STATE = AccessState(
    sites={
        SiteName("shop"): SiteEntries(
            users={
                "alice": AccessEntry(user="alice", until=UNTIL, requested_by="ann"),
                "john doe": AccessEntry(user="john doe"),
                "monitor": AccessEntry(user="monitor"),
            },
            revoked={"bob": UNTIL},
        ),
        SiteName("empty"): SiteEntries(problem="there is no file"),
    }
)


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    assert read_state(tmp_path) is None
    state_path(tmp_path).parent.mkdir()
    write_state(tmp_path, STATE)
    assert read_state(tmp_path) == STATE
    assert state_path(tmp_path).stat().st_mode & 0o007 == 0


def test_a_site_is_described_by_names_that_a_message_can_carry() -> None:
    shown = STATE.described(SiteName("shop"))
    assert [(each.user, each.until, each.requested_by) for each in shown] == [
        ("alice", UNTIL, "ann"),
        ("monitor", None, ""),
    ]
    assert STATE.described(SiteName("other")) == ()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\xff",
        b"[" * 100_000,
        json.dumps({"format": 1, "sites": {"../x": {}}}).encode(),
        json.dumps({"format": 1, "sites": {"shop": {"users": {"a": {"until": "soon"}}, "revoked": {}}}}).encode(),
        encode_state(STATE).replace(b"+00:00", b""),
        encode_state(STATE)[:-20],
    ],
)
def test_damage_is_an_error(content: bytes) -> None:
    with pytest.raises(AccessError, match="damaged"):
        decode_state(content)


def test_a_newer_format_is_left_alone() -> None:
    with pytest.raises(AccessError, match="format 2"):
        decode_state(encode_state(STATE).replace(b'"format": 1', b'"format": 2'))
