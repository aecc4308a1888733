"""Which signed messages a console passes on, and that it changes nothing of them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import attrs
import pytest

from deploykit.errors import ActionRefused
from deploykit.messages import AccessGrantRequested, Message, Notice, SiteUnlocked, utc_now
from deploykit.names import NodeName
from deploykit.trust.signature import HEADER, sign
from deploykit.web.actions.relay import MOST_BODY, ConsoleRelay, read_relayed
from deploykit.web.viewer import Viewer
from deploykit.wire import encode
from tests.support.actionworld import LIVE, LOOK, NOBODY, SHOP, STAGE, ActionWorld
from tests.unit.web.actions.test_locking import lock_message

_HASH = "$6$abcdefgh$" + "a" * 86


@pytest.fixture
def world(tmp_path: Path) -> ActionWorld:
    return ActionWorld(tmp_path)


def grant(**changes: object) -> AccessGrantRequested:
    """Return a grant of access."""
    now = utc_now()
    values = {"time": now, "site": SHOP, "user": "eve", "password_hash": _HASH, "expires": now + timedelta(minutes=10)}
    return AccessGrantRequested(source="operator/laptop", **{**values, **changes})  # type: ignore[arg-type]  # by name


def signed(world: ActionWorld, message: Message, by: str = "ann") -> tuple[bytes, str]:
    frame = sign(encode(message), world.keys[by])
    return frame.body, frame.headers[HEADER]


def refused(world: ActionWorld, body: bytes, signature: str, viewer: Viewer = LIVE) -> ActionRefused:
    with pytest.raises(ActionRefused) as caught:
        ConsoleRelay(world.ports).relay(viewer, body, signature)
    assert world.lines[-1].decision == "refused"
    assert world.bus.sent == []
    return caught.value


@pytest.mark.parametrize("make", [lock_message, grant, lambda: grant(audience=(NodeName("web9"),))])
def test_body_and_signature_go_on_byte_for_byte(world: ActionWorld, make: Callable[[], Message]) -> None:
    message = make()  # here: what is made while tests are collected may be too old when this one runs
    body, signature = signed(world, message)
    outcome = ConsoleRelay(world.ports).relay(LIVE, body, signature)
    assert (outcome.state, outcome.site) == ("asked", "shop")
    [(destination, frame)] = world.bus.sent
    topics = world.settings.topics
    assert destination == (topics.deploy if message.TYPE.startswith("deploykit.site") else topics.access)
    assert (frame.body, frame.headers[HEADER]) == (body, signature)
    line = world.lines[-1]
    assert (line.decision, line.who, line.site) == ("asked", "liv", "shop")
    assert world.keys["ann"].fingerprint in line.detail


def test_a_role_below_live_passes_nothing_on(world: ActionWorld) -> None:
    body, signature = signed(world, lock_message())
    assert [refused(world, body, signature, viewer).status for viewer in (LOOK, STAGE, NOBODY)] == [403, 403, 404]


def test_a_signature_must_count_and_its_key_be_granted_this(world: ActionWorld) -> None:
    message = lock_message()
    for by in ("mallory", "eve", "bob"):
        assert refused(world, *signed(world, message, by)).status == 403
    assert refused(world, *signed(world, grant(), "desk")).status == 403
    body, _ = signed(world, message)
    _, other = signed(world, lock_message(reason="another"))
    assert refused(world, body, other).status == 403


def test_what_is_old_or_over_is_refused(world: ActionWorld) -> None:
    old = utc_now() - timedelta(minutes=11)
    assert refused(world, *signed(world, lock_message(time=old))).status == 409
    assert refused(world, *signed(world, lock_message(time=utc_now() + timedelta(minutes=11)))).status == 409
    over = grant(time=old, expires=utc_now() - timedelta(minutes=5))
    assert refused(world, *signed(world, over)).status == 403


@pytest.mark.parametrize("signature", ["", "x", "A" * 100_000, "a\nb"])
def test_what_is_no_signature_is_refused(world: ActionWorld, signature: str) -> None:
    body, _ = signed(world, lock_message())
    assert refused(world, body, signature).status == 422


def test_other_messages_are_not_passed_on(world: ActionWorld) -> None:
    notice = Notice(source="x", text="hello")
    error = refused(world, *signed(world, notice))
    assert (error.status, list(error.problems)) == (422, ["body"])


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"\xff", b"null", b"x" * (MOST_BODY + 1)])
def test_what_is_no_message_is_refused(world: ActionWorld, body: bytes) -> None:
    _, signature = signed(world, lock_message())
    assert refused(world, body, signature).status in (413, 422)


def test_bytes_that_we_would_not_write_are_refused(world: ActionWorld) -> None:
    body, signature = signed(world, lock_message())
    for other in (body + b" ", body.replace(b'":', b'": ', 1), body.replace(b"{", b'{"x":1,', 1)):
        assert refused(world, other, signature).status == 422


def test_an_unknown_field_and_a_password_in_clear_are_refused(world: ActionWorld) -> None:
    unlocked = SiteUnlocked(source="operator/x", site=SHOP, serial=2, extra={"more": 1})
    assert "fields that this version does not know" in str(refused(world, *signed(world, unlocked)))
    body, signature = signed(world, attrs.evolve(grant(), password_hash=None))
    clear = body.replace(b'"password_hash":null', b'"password":"in clear"')
    assert clear != body
    assert refused(world, clear, signature).status == 422


def test_an_extension_has_no_hash_and_passes(world: ActionWorld) -> None:
    relayed = read_relayed(signed(world, attrs.evolve(grant(), password_hash=None))[0])
    assert isinstance(relayed, AccessGrantRequested)
    assert relayed.password_hash is None
