"""Accesses from the console: who may, what is sent, what the ledger keeps, and what is shown before nodes answer."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest

from deploykit.errors import ActionRefused, ConnectError
from deploykit.messages import AccessGrantRequested, AccessRevokeRequested
from deploykit.system.shacrypt import sha_crypt
from deploykit.trust.allowed_signers import AllowedSigners
from deploykit.trust.keyfiles import load_allowed_signers
from deploykit.trust.signature import verify
from deploykit.web.actions.access import ConsoleAccess, access_rows
from deploykit.web.actions.asked import GrantAsked
from deploykit.web.ledger.access import KeptAccess
from deploykit.web.projection.accessqueries import NodeAccess
from deploykit.wire import Frame, decode
from tests.support.actionworld import ADMIN, LIVE, NOBODY, STAGE, ActionWorld, HearingBus

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
UNTIL = NOW + timedelta(days=3)


@attrs.define
class KeptInMemory:
    """A ledger of accesses in memory."""

    grants: list[KeptAccess] = attrs.Factory(list)

    def add(self, grant: KeptAccess) -> KeptAccess:
        self.grants.append(attrs.evolve(grant, asked=NOW.timestamp()))
        return self.grants[-1]

    def list(self, site: str = "") -> tuple[KeptAccess, ...]:
        return tuple(each for each in self.grants if site in ("", each.site))

    def end(self, site: str, user: str) -> bool:
        before = len(self.grants)
        self.grants = [each for each in self.grants if (each.site, each.user) != (site, user)]
        return len(self.grants) < before


class AccessDesk:
    """A console whose projection says that web1 and web2 protect the shop."""

    def __init__(self, root: Path) -> None:
        self.world = ActionWorld(root)
        self.world.moment = NOW
        self.queries = self.world.queries
        self.queries.protected_sites = {"shop": ("web1", "web2"), "docs": ("web9",)}
        self.kept = KeptInMemory()
        self.access = ConsoleAccess(self.world.ports, self.kept)
        trusted = self.world.settings.trust.allowed_signers
        assert trusted is not None
        self.signers: AllowedSigners = load_allowed_signers(trusted)

    def frame(self) -> Frame:
        """The last frame that was sent; the console must have signed it."""
        destination, frame = self.world.bus.sent[-1]
        assert destination == self.world.settings.topics.access
        assert verify(frame, self.signers, datetime.now(UTC)).is_principal("desk")
        return frame

    def message(self) -> AccessGrantRequested | AccessRevokeRequested:
        """The last message that was sent."""
        frame = self.frame()
        message = decode(frame.headers, frame.body)
        assert isinstance(message, AccessGrantRequested | AccessRevokeRequested)
        return message

    def has(
        self, user: str, *nodes: str, state: str = "granted", until: datetime | None = UNTIL, answered: str = ""
    ) -> None:
        """Let nodes have reported an access."""
        self.queries.access_list += tuple(
            NodeAccess(
                site="shop", user=user, node=node, state=state, until=until, requested_by="ann", answered=answered
            )
            for node in nodes
        )


@pytest.fixture
def desk(tmp_path: Path) -> AccessDesk:
    return AccessDesk(tmp_path)


def test_a_password_is_made_here_and_leaves_as_a_hash(desk: AccessDesk) -> None:
    granted = desk.access.grant(LIVE, GrantAsked(site="shop", user="alice", until="3d"))
    message = desk.message()
    assert isinstance(message, AccessGrantRequested)
    assert (message.site, message.user, message.until, message.requested_by) == ("shop", "alice", UNTIL, "liv")
    assert message.password_hash is not None
    assert sha_crypt(granted.password.encode(), message.password_hash) == message.password_hash
    assert granted.row.nodes == (("web1", "asked"), ("web2", "asked"))
    everything = (desk.frame().body, repr(granted), repr(desk.kept.grants), repr(desk.world.lines))
    assert not any(granted.password in str(each) for each in everything)
    # Whoever steals the ledger has no hash to guess at.
    assert "$6$" not in str([attrs.asdict(each) for each in desk.kept.grants])
    (line,) = desk.world.lines
    assert (line.action, line.decision, line.who, line.site) == ("grant access", "asked", "liv", "shop")


def test_nothing_is_said_to_be_granted_before_nodes_report_it(desk: AccessDesk) -> None:
    desk.access.grant(LIVE, GrantAsked(site="shop", user="alice"))
    (row,) = desk.access.list(LIVE)
    assert row.nodes == (("web1", "asked"), ("web2", "asked"))
    (grant,) = desk.kept.grants
    desk.has("alice", "web1", answered=grant.request)
    desk.has("alice", "web2", state="failed", until=None, answered=grant.request)
    (row,) = desk.access.list(LIVE, "shop")
    assert row.nodes == (("web1", "granted"), ("web2", "failed"))
    assert row.until == UNTIL


@pytest.mark.parametrize("viewer", [STAGE, NOBODY])
def test_who_has_not_the_role_neither_grants_nor_lists(desk: AccessDesk, viewer: object) -> None:
    desk.has("alice", "web1")
    who = STAGE if viewer is STAGE else NOBODY
    assert [row.site for row in desk.access.list(who)] == []
    assert "shop" not in desk.access.sites(who)
    for call in (
        lambda: desk.access.grant(who, GrantAsked(site="shop", user="eve")),
        lambda: desk.access.extend(who, GrantAsked(site="shop", user="alice", until="9d")),
        lambda: desk.access.revoke(who, "shop", "alice"),
    ):
        with pytest.raises(ActionRefused) as refused:
            call()
        assert refused.value.status == (404 if who is NOBODY else 403)
    assert desk.world.bus.sent == []
    assert [line.decision for line in desk.world.lines] == ["refused"] * 3


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        (GrantAsked(site="shop", user="a:b"), "user"),
        (GrantAsked(site="shop", user="a\nroot"), "user"),
        (GrantAsked(site="shop", user=""), "user"),
        (GrantAsked(site="shop", user="-x"), "user"),
        (GrantAsked(site="shop", user="alice", until="soon"), "until"),
        (GrantAsked(site="shop", user="alice", until="2020-01-01T00:00Z"), "until"),
        (GrantAsked(site="shop", user="alice", until="2026-12-24T18:00"), "until"),
        (GrantAsked(site="blog", user="alice"), "site"),
    ],
)
def test_what_makes_no_sense_is_refused_beside_its_field(desk: AccessDesk, asked: GrantAsked, field: str) -> None:
    with pytest.raises(ActionRefused) as refused:
        desk.access.grant(ADMIN, asked)
    assert refused.value.status == 422
    assert list(refused.value.problems) == [field]
    assert desk.world.bus.sent == []
    assert desk.kept.grants == []


def test_an_access_is_extended_from_its_end_without_a_hash(desk: AccessDesk) -> None:
    with pytest.raises(ActionRefused, match="grant it anew") as refused:
        desk.access.extend(LIVE, GrantAsked(site="shop", user="alice", until="7d"))
    assert refused.value.status == 409
    desk.has("alice", "web1", "web2")
    outcome = desk.access.extend(LIVE, GrantAsked(site="shop", user="alice", until="7d"))
    message = desk.message()
    assert isinstance(message, AccessGrantRequested)
    assert (message.password_hash, message.until) == (None, UNTIL + timedelta(days=7))
    assert (outcome.state, "2026-12-10 12:00 UTC" in outcome.detail) == ("asked", True)
    desk.access.extend(LIVE, GrantAsked(site="shop", user="alice", until="2026-12-01T00:00Z"))
    assert desk.message().summary.endswith("until 2026-12-01 requested by liv")


def test_somebody_elses_line_cannot_be_extended(desk: AccessDesk) -> None:
    desk.has("monitor", "web1", until=None)
    (row,) = desk.access.list(LIVE)
    assert row.until is None
    with pytest.raises(ActionRefused, match="could be extended"):
        desk.access.extend(LIVE, GrantAsked(site="shop", user="monitor", until="7d"))


def test_a_revocation_is_sent_whatever_is_known(desk: AccessDesk) -> None:
    desk.access.grant(LIVE, GrantAsked(site="shop", user="alice"))
    outcome = desk.access.revoke(LIVE, "shop", "alice")
    assert isinstance(desk.message(), AccessRevokeRequested)
    assert outcome.notes == ("No node had reported an access of alice.",)
    assert desk.access.list(LIVE) == ()
    desk.queries.protected_sites = {}  # a projection that was lost
    assert desk.access.revoke(LIVE, "shop", "bob").state == "asked"


def test_without_a_broker_nothing_was_done(desk: AccessDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object, **__: object) -> None:
        raise ConnectError("no broker")

    monkeypatch.setattr(HearingBus, "publish", away)
    with pytest.raises(ActionRefused, match="no node can be reached") as refused:
        desk.access.grant(LIVE, GrantAsked(site="shop", user="alice"))
    assert refused.value.status == 503
    assert desk.kept.grants == []


def test_a_grant_that_nobody_answers_is_shown_for_an_hour() -> None:
    kept = [
        KeptAccess(request="1", site="shop", user="new", password_hash="", asked=NOW.timestamp() - 60),
        KeptAccess(request="2", site="shop", user="old", password_hash="", asked=NOW.timestamp() - 3700),
        KeptAccess(request="3", site="shop", user="over", password_hash="", asked=NOW.timestamp(), until=1.0),
        KeptAccess(request="4", site="shop", user="seen", password_hash="", asked=NOW.timestamp()),
    ]
    known = [
        NodeAccess(site="shop", user="seen", node="web1", state="granted", until=UNTIL, answered="4"),
        NodeAccess(site="shop", user="seen", node="web2", state="granted", until=UNTIL, asked="5"),
    ]
    rows = access_rows(known, kept, {"shop": ("web1", "web2", "web3")}, NOW)
    assert [(row.user, row.nodes) for row in rows] == [
        ("new", (("web1", "asked"), ("web2", "asked"), ("web3", "asked"))),
        ("seen", (("web1", "granted"), ("web2", "asked"), ("web3", "asked"))),
    ]


def test_a_node_that_did_not_do_what_was_asked_last_says_why() -> None:
    old = NodeAccess(site="shop", user="al", node="web1", state="granted", until=UNTIL, answered="2", detail="too long")
    asked = attrs.evolve(old, node="web2", asked="3")
    (row,) = access_rows([old, asked], [], {"shop": ("web1", "web2")}, NOW)
    assert row.problems == (("web1", "too long"),)


def test_a_new_password_is_not_shown_as_granted_because_the_old_one_was() -> None:
    grant = KeptAccess(request="g2", site="shop", user="alice", password_hash="", asked=NOW.timestamp())
    old = NodeAccess(site="shop", user="alice", node="web1", state="granted", until=UNTIL, answered="g1")

    def shown(**changes: Any) -> tuple[tuple[str, str], ...]:
        (row,) = access_rows([attrs.evolve(old, **changes)], [grant], {"shop": ("web1",)}, NOW)
        return row.nodes

    assert shown(reported=NOW - timedelta(days=1)) == (("web1", "asked"),)
    assert shown(reported=NOW + timedelta(seconds=1)) == (("web1", "asked"),)  # described before it obeyed
    assert shown(reported=NOW + timedelta(seconds=1), answered="g2") == (("web1", "granted"),)
    assert shown(reported=NOW + timedelta(minutes=1)) == (("web1", "granted"),)
