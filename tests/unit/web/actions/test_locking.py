"""Locks from the console: whose they are, and who may lift them. The way over the bus is in the integration tests."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import attrs
import pytest

from deploykit.errors import ActionRefused
from deploykit.messages import NodeDescribed, SiteLocked, utc_now
from deploykit.trust.lockrules import judge
from deploykit.trust.signature import sign
from deploykit.trust.statements import statement_of
from deploykit.web.actions.asked import LockAsked
from deploykit.web.actions.locks import ConsoleLocks, locked_for
from deploykit.wire import encode
from tests.support.actionworld import ADMIN, LIVE, LOOK, NOBODY, SHOP, STAGE, ActionWorld


def lock_message(**changes: object) -> SiteLocked:
    """Return a lock of the shop for an hour."""
    now = utc_now()
    values = {
        "time": now,
        "site": SHOP,
        "serial": 1,
        "holder": "liv",
        "reason": "audit",
        "until": now + timedelta(hours=1),
    }
    return SiteLocked(source="operator/desk", **{**values, **changes})  # type: ignore[arg-type]  # by name


def locked_by(world: ActionWorld, name: str, node: NodeDescribed, **changes: object) -> NodeDescribed:
    """Return a node that shows somebody's lock."""
    statement = statement_of(sign(encode(lock_message(**changes)), world.keys[name]))
    return attrs.evolve(node, sites=tuple(attrs.evolve(state, lock=statement) for state in node.sites))


@pytest.fixture
def world(tmp_path: Path) -> ActionWorld:
    return ActionWorld(tmp_path)


def refused(world: ActionWorld, asked: LockAsked, viewer: object = LIVE) -> ActionRefused:
    with pytest.raises(ActionRefused) as caught:
        ConsoleLocks(world.ports).lock(viewer, asked)  # type: ignore[arg-type]  # a viewer
    assert world.decisions()[-1] == ("lock", "refused")
    return caught.value


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        (LockAsked(site="shop"), "reason"),
        (LockAsked(site="shop", reason=" \n"), "reason"),
        (LockAsked(site="shop", reason="x", until="soon"), "until"),
        (LockAsked(site="shop", reason="x", until="0001-01-01T00:00+23:59"), "until"),
        (LockAsked(site="shop", reason="x", until="9999-12-31T23:59-23:59"), "until"),
        (LockAsked(site="shop", reason="x", until="2020-01-01T00:00Z"), "until"),
        (LockAsked(site="shop", reason="x", until="2030-01-01"), "until"),
        (LockAsked(site="shop", reason="x", until="31d"), "until"),
    ],
)
def test_a_wrong_lock_names_its_field(world: ActionWorld, asked: LockAsked, field: str) -> None:
    error = refused(world, asked)
    assert (error.status, list(error.problems)) == (422, [field])


def test_only_the_role_live_locks_and_unlocks(world: ActionWorld) -> None:
    asked = LockAsked(site="shop", reason="x")
    assert [refused(world, asked, viewer).status for viewer in (LOOK, STAGE, NOBODY)] == [403, 403, 404]
    for viewer in (LOOK, STAGE, NOBODY):
        with pytest.raises(ActionRefused):
            ConsoleLocks(world.ports).unlock(viewer, "shop")
    assert world.bus.sent == []


def test_a_lock_is_yours_where_the_consoles_key_made_it_in_your_name(world: ActionWorld) -> None:
    trust, now = world.ports.trust(), utc_now()

    def known(by: str, holder: str) -> bool:
        statement = statement_of(sign(encode(lock_message(holder=holder)), world.keys[by]))
        return locked_for(judge(statement, trust, now), LIVE, world.ports.signer())

    assert known("desk", "liv")
    assert not known("desk", "ada"), "locked for somebody else"
    assert not known("ann", "liv"), "whoever writes a name into their own lock does not own it for that"


def test_a_person_without_a_name_owns_nothing(world: ActionWorld) -> None:
    statement = statement_of(sign(encode(lock_message(holder="")), world.keys["desk"]))
    lock = judge(statement, world.ports.trust(), utc_now())
    assert not locked_for(lock, attrs.evolve(ADMIN, name=""), world.ports.signer())
