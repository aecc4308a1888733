"""What a command asks of a node: ends, hashes, and which grant comes too late."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest

from deploykit.daemons.access.decisions import change_of
from deploykit.daemons.access.legacymessages import is_legacy, read_legacy, relabelled
from deploykit.errors import MessageError, PolicyRefused
from deploykit.messages import AccessGrantRequested, AccessRevokeRequested
from deploykit.names import SiteName
from deploykit.settings import AccessSettings, AccessSiteSettings
from deploykit.system.passwordfile import parse_passwords
from deploykit.wire import CONTENT_TYPE, Frame

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
SHOP, STAGE = SiteName("shop"), SiteName("stage")
HASH = "$6$saltsalt$" + "a" * 86
SETTINGS = AccessSettings(
    sites={
        SHOP: AccessSiteSettings(file=Path("/a"), label="Example site"),
        STAGE: AccessSiteSettings(file=Path("/b"), kind="haproxy", userlist="stage"),
    }
)


def grant(**changes: Any) -> AccessGrantRequested:
    return attrs.evolve(AccessGrantRequested(site=SHOP, user="alice", password_hash=HASH, time=NOW), **changes)


def test_an_access_ends_after_two_weeks_where_nobody_says_when() -> None:
    change = change_of(grant(), SETTINGS, NOW)
    assert (change.until, change.hash, change.kind) == (NOW + timedelta(days=14), HASH, "grant")
    assert HASH not in repr(change)


@pytest.mark.parametrize(
    ("until", "why"),
    [
        (NOW, "over before it begins"),
        (NOW + timedelta(days=366, seconds=1), "366 days at most"),
        (datetime.max.replace(tzinfo=UTC), "366 days at most"),
    ],
)
def test_an_end_that_is_none_is_refused(until: datetime, why: str) -> None:
    with pytest.raises(PolicyRefused, match=why):
        change_of(grant(until=until), SETTINGS, NOW)


def test_a_grant_that_is_older_than_the_last_revocation_brings_nothing_back() -> None:
    with pytest.raises(PolicyRefused, match="revoked after"):
        change_of(grant(), SETTINGS, NOW, revoked_at=NOW + timedelta(seconds=1))
    assert change_of(grant(), SETTINGS, NOW, revoked_at=NOW).kind == "grant"
    old = AccessRevokeRequested(site=SHOP, user="alice", time=NOW)
    assert change_of(old, SETTINGS, NOW, revoked_at=NOW + timedelta(days=1)).kind == "revoke"


@pytest.mark.parametrize("site", [SHOP, STAGE])
def test_a_password_in_clear_is_hashed_as_the_server_takes_it(site: SiteName) -> None:
    change = change_of(grant(site=site, password_hash=None, password="abcdefghijkl"), SETTINGS, NOW)
    assert change.hash is not None
    assert change.hash.startswith("$6$" if site == STAGE else "$2b$10$")
    assert parse_passwords(f"alice:{change.hash}").check("alice", "abcdefghijkl")
    long = change_of(grant(site=site, password_hash=None, password="x" * 100), SETTINGS, NOW)
    assert long.hash is not None
    assert long.hash.startswith("$6$")


def test_without_a_password_an_access_is_extended() -> None:
    assert change_of(grant(password_hash=None), SETTINGS, NOW).hash is None


# -- the original's ---------------------------------------------------------------------------------------------------


def test_only_what_is_unsigned_and_not_of_our_format_may_be_the_originals() -> None:
    assert is_legacy(Frame({}, b"Site: shop"))
    assert is_legacy(Frame({"content-type": "text/plain"}, b"Site: shop"))
    assert not is_legacy(Frame({"content-type": CONTENT_TYPE}, b"{}"))
    assert not is_legacy(Frame({"deploykit-signature": "x"}, b"Site: shop"))


@pytest.mark.parametrize("line", [b"Site: Example site", b"Site:Example site", b"Site: Example site\r"])
def test_a_label_becomes_the_name_of_its_site(line: bytes) -> None:
    frame = Frame({}, line + b"\nUser: alice\nPassword: x y:z\n")
    message = read_legacy(frame, "/topic/access", NOW, SETTINGS)
    assert message is not None
    assert (message.site, message.user, message.password) == (SHOP, "alice", "x y:z")


@pytest.mark.parametrize(
    "body",
    [
        b"Site: Nowhere at all\nUser: alice\nPassword: x\n",
        b"Site: shop\nUser: a:b\nPassword: x\n",
        b"Site: shop\nUser: a b\nPassword: x\n",
        b"Site: shop\nUser: alice\nPassword: \n",
        b"Site: shop\nUser: alice\nUser: root\nPassword: x\n",
        b"Site: ../shop\nUser: alice\nPassword: x\n",
        b"\xff\xfe",
    ],
)
def test_what_no_form_would_send_is_no_grant(body: bytes) -> None:
    with pytest.raises(MessageError):
        read_legacy(Frame({}, body), "/topic/access", NOW, SETTINGS)


@pytest.mark.parametrize(
    "written",
    [
        b"Site: Example site", b"Site:Example site  ", b"Site: example SITE\r", b" \n Site: Example site",
        b"Site: Example  site",
    ],
)  # fmt: skip
def test_a_label_is_known_in_any_case_and_between_blanks(written: bytes) -> None:
    body = relabelled(written + b"\nUser: a", {"Example site": SHOP})
    assert body.replace(b"\r", b"").strip() == b"Site: shop\nUser: a"


def test_a_label_in_another_case_that_could_mean_two_sites_means_none() -> None:
    labels = {"Example site": SHOP, "Example Site": STAGE}
    assert relabelled(b"Site: Example Site\n", labels) == b"Site: stage\n"
    assert relabelled(b"Site: EXAMPLE SITE\n", labels) == b"Site: EXAMPLE SITE\n"


def test_the_name_of_a_site_is_that_site_whoever_has_it_for_a_label() -> None:
    assert relabelled(b"Site: stage\n", {"stage": SHOP}, (SHOP, STAGE)) == b"Site: stage\n"
    sites = {SHOP: AccessSiteSettings(file=Path("/a"), label="stage"), STAGE: AccessSiteSettings(file=Path("/b"))}
    assert AccessSettings(sites=sites).problems() == ("sites.shop.label: another site has that name",)
    own = AccessSiteSettings(file=Path("/a"), label="shop")
    assert AccessSettings(sites={SHOP: own}).problems() == ()


@pytest.mark.parametrize("label", [" Example site", "a\nb"])
def test_a_label_that_no_form_would_send_is_a_problem(label: str) -> None:
    assert AccessSiteSettings(file=Path("/a"), label=label).problems()


def test_no_other_line_is_touched_by_a_label() -> None:
    body = b"User: Example site\nPassword: Site: Example site\n Site: Example site\n"
    assert relabelled(body, {"Example site": SHOP}) == body


@pytest.mark.parametrize("site", [SHOP, STAGE])
def test_a_password_in_clear_that_costs_time_and_memory_is_refused(site: SiteName) -> None:
    with pytest.raises(PolicyRefused, match="512 bytes"):
        change_of(grant(site=site, password_hash=None, password="x" * 60_000), SETTINGS, NOW)
