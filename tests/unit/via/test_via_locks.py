"""Locks through a console: signed here and passed on byte for byte; what the console says of a lock is looked at."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import attrs
import pytest
from click.testing import CliRunner, Result

from deploykit.cli import group
from deploykit.errors import DeploykitError, PolicyRefused
from deploykit.messages import SiteLocked, SiteUnlocked, utc_now
from deploykit.names import SiteName
from deploykit.operations.lockdrafts import lock_message
from deploykit.trust.keyfiles import generate_key
from deploykit.trust.signature import HEADER, SigningKey, sign
from deploykit.via.statements import lifted_lock, require_serial
from deploykit.web.actions.asked import LockAsked
from deploykit.web.actions.shown import ActionOutcome, LockState
from deploykit.wire import CONTENT_TYPE, decode, encode
from tests.support.consoleserver import api_alone, serving
from tests.support.fixedactions import FixedActions
from tests.support.fixedqueries import FixedQueries

SHOP = SiteName("shop")


@pytest.fixture
def console() -> FixedActions:
    return FixedActions()


@pytest.fixture
def url(console: FixedActions) -> Iterator[str]:
    with serving(api_alone(FixedQueries(), actions=console.console)) as server:
        yield server.url.rstrip("/")


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DEPLOYKIT_CONFIG", str(tmp_path / "none.toml"))


@pytest.fixture
def key(tmp_path: Path) -> Path:
    generate_key(tmp_path / "key")
    return tmp_path / "key"


def run(*words: object) -> Result:
    result = CliRunner().invoke(group, [str(word) for word in words])
    if result.exception and not isinstance(result.exception, DeploykitError | SystemExit):
        raise result.exception
    return result


def shown(lock: SiteLocked, signer: SigningKey, **changes: int) -> LockState:
    frame = sign(encode(lock), signer)
    body = base64.b64encode(frame.body).decode()
    serial = changes.get("serial", lock.serial + 1)
    return LockState(site="shop", serial=serial, body=body, signature=str(frame.headers[HEADER]), nodes=3)


def relayed(console: FixedActions) -> tuple[object, str]:
    ((body, signature),) = console.calls("relay")
    assert isinstance(body, bytes)
    return decode({"content-type": CONTENT_TYPE}, body), str(signature)


def test_with_a_key_the_statement_is_signed_here_and_passed_on(console: FixedActions, url: str, key: Path) -> None:
    console.lock_state = LockState(site="shop", serial=int(utc_now().timestamp()) + 5, nodes=3)
    done = run("lock", "shop", "--reason", "audit", "--until", "3d", "--no-rollback", "--via", url, "--key", key)
    assert done.exit_code == 0, done.output
    message, signature = relayed(console)
    assert isinstance(message, SiteLocked)
    assert (message.reason, message.serial, message.allow_rollback) == ("audit", console.lock_state.serial, False)
    assert signature
    assert console.calls("lock") == []


def test_without_a_key_the_console_signs_in_its_own_name(console: FixedActions, url: str) -> None:
    done = run("lock", "shop", "--reason", "audit", "--via", url)
    assert done.exit_code == 0, done.output
    ((asked,),) = console.calls("lock")
    assert isinstance(asked, LockAsked)
    assert (asked.site, asked.reason, asked.allow_rollback) == ("shop", "audit", True)
    assert asked.until
    assert run("unlock", "shop", "--reason", "over", "--via", url).exit_code == 0
    assert console.calls("unlock") == [("shop", "over")]
    assert console.calls("relay") == []


def test_an_unlock_carries_the_very_lock_that_it_lifts(console: FixedActions, url: str, key: Path) -> None:
    lock = lock_message(SHOP, "audit", utc_now(), serial=77, holder="ann")
    console.lock_state = shown(lock, generate_key(key.parent / "other"))
    done = run("unlock", "shop", "--via", url, "--key", key)
    assert done.exit_code == 0, done.output
    assert "ann" in done.output, "who holds the lock that is lifted"
    message, _ = relayed(console)
    assert isinstance(message, SiteUnlocked)
    assert message.locked is not None
    assert message.locked.body == console.lock_state.body
    assert message.serial >= 78


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_a_lock_that_the_console_does_not_believe_is_not_taken_for_none(
    console: FixedActions, url: str, key: Path, more: tuple[str, ...]
) -> None:
    console.lock_state = attrs.evolve(console.lock_state, nodes=1, locks=("web1 shows what does not count",))
    done = run("unlock", "shop", "--via", url, "--key", key, *more)
    assert done.exit_code == 1
    assert "nothing was lifted" in done.output
    assert "is not locked" not in done.output
    assert console.calls("relay") == []


def test_a_lock_that_no_node_holds_is_no_success(console: FixedActions, url: str) -> None:
    outcome = ActionOutcome(state="asked", site="shop", detail="0 of 0 nodes hold it")
    console.lock = lambda viewer, asked: outcome  # type: ignore[method-assign] # a site of nobody
    assert run("lock", "shop", "--reason", "audit", "--via", url).exit_code == 1


def test_what_is_not_locked_needs_no_unlock(console: FixedActions, url: str, key: Path) -> None:
    done = run("unlock", "shop", "--via", url, "--key", key, "--json")
    assert (done.exit_code, json.loads(done.output)["detail"]) == (0, "shop is not locked")
    assert console.calls("relay") == []


def test_a_console_whose_nodes_are_silent_knows_nothing(console: FixedActions, url: str, key: Path) -> None:
    console.lock_state = LockState(site="shop", serial=1)
    done = run("unlock", "shop", "--via", url, "--key", key)
    assert "nothing is known" in str(done.exception)


def test_a_serial_far_ahead_is_not_signed() -> None:
    """Signed, it would keep everybody from ever making a higher one."""
    now = utc_now()
    assert require_serial(LockState(site="shop", serial=5), now) == int(now.timestamp())
    ahead = int((now + timedelta(hours=1)).timestamp())
    assert require_serial(LockState(site="shop", serial=ahead), now) == ahead
    with pytest.raises(PolicyRefused, match="far ahead"):
        require_serial(LockState(site="shop", serial=2**53 - 1), now)


def test_only_a_lock_of_the_site_is_lifted(tmp_path: Path) -> None:
    key = generate_key(tmp_path / "key")
    lock = lock_message(SHOP, "audit", utc_now(), serial=7)
    found = lifted_lock(shown(lock, key), SHOP)
    assert found is not None
    assert found[1] == lock
    with pytest.raises(PolicyRefused, match="another thing"):
        lifted_lock(shown(lock, key), SiteName("docs"))
    for body in ("***", base64.b64encode(b"{}").decode()):
        with pytest.raises(PolicyRefused):
            lifted_lock(LockState(site="shop", serial=1, body=body, signature="x"), SHOP)
