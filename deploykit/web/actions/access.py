"""Accesses to protected sites from the console, signed by its own key.

Rules:

* The role live lists, grants, extends and revokes. Each of these is in the audit.
* The password leaves this process in the answer to whoever asked, and else as a hash only. The ledger has neither.
* What is shown as granted, a node has reported. Until all that protect the site have answered, the others are `asked`.
* A revocation is sent even where nobody is known to have that access: what is shown here may be old.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

import attrs

from deploykit.errors import ActionRefused, BusError, UsageError
from deploykit.messages import AccessGrantRequested
from deploykit.messages.topics import topic_of
from deploykit.names import SiteName
from deploykit.operations.accessmessages import AccessCommandMessage, grant_message, revoke_message
from deploykit.operations.moments import parse_moment
from deploykit.system.passwordmaking import make_password
from deploykit.trust.signature import sign
from deploykit.web.actions.actionports import ActionPorts, site_named
from deploykit.web.actions.asked import GrantAsked
from deploykit.web.actions.ports import AccessActions
from deploykit.web.actions.rights import require
from deploykit.web.actions.shown import AccessGranted, AccessRow, ActionOutcome
from deploykit.web.ledger.access import KeptAccess
from deploykit.web.projection.accessqueries import NodeAccess
from deploykit.web.viewer import Viewer
from deploykit.wire import encode

#: For how long a grant without any answer is shown: nodes obey it for an hour at most.
_UNANSWERED: Final = timedelta(hours=1)
#: Seconds in which a node obeys a command: a burst, a test and a reload.
_MOMENT: Final = 10.0


class AccessKept(Protocol):
    """Keeps durably which grants were asked for: `ledger.access.AccessLedger`."""

    def add(self, grant: KeptAccess) -> KeptAccess:
        """Keep a grant."""
        ...

    def list(self, site: str = "") -> tuple[KeptAccess, ...]:
        """Return the grants of a site, or all."""
        ...

    def end(self, site: str, user: str) -> bool:
        """Forget the grant of a user and site."""
        ...


class ConsoleAccess(AccessActions):
    """See above.

    Args:
        ports: what it works with.
        kept: keeps which grants were asked for.
    """

    def __init__(self, ports: ActionPorts, kept: AccessKept) -> None:
        self._ports = ports
        self._kept = kept

    def sites(self, viewer: Viewer) -> Sequence[str]:
        """See `AccessActions`."""
        return [site for site in self._ports.queries.protected(viewer) if viewer.may(site, "live")]

    def list(self, viewer: Viewer, site: str = "") -> Sequence[AccessRow]:
        """See `AccessActions`."""
        queries = self._ports.queries
        known = [each for each in queries.access(viewer, site) if viewer.may(each.site, "live")]
        kept = [each for each in self._kept.list(site) if viewer.may(each.site, "live")]
        return access_rows(known, kept, queries.protected(viewer), self._ports.now())

    def grant(self, viewer: Viewer, asked: GrantAsked) -> AccessGranted:
        """See `AccessActions`."""
        ports = self._ports
        with ports.audit.judging(viewer, "grant access", site=asked.site):
            site, nodes = self._protected(viewer, asked.site, "grant access")
            password, until = make_password(), self._until(asked)
            try:
                message = grant_message(
                    *(ports.trust(), site, asked.user),
                    password=password,
                    until=until,
                    by=viewer.name,
                    now=ports.now(),
                )
            except UsageError as error:  # of the name alone: the end was looked at
                raise ActionRefused(error.problem, error.remedy, status=422, user=error.problem) from error
            self._ask(message, viewer)
        self._note(viewer, "grant access", site, f"{message.summary}; asked of {len(nodes)} nodes")
        row = AccessRow(
            site=site,
            user=asked.user,
            until=until,
            requested_by=viewer.name,
            nodes=tuple((node, "asked") for node in nodes),
        )
        return AccessGranted(row=row, password=password)

    def extend(self, viewer: Viewer, asked: GrantAsked) -> ActionOutcome:
        """See `AccessActions`. So long ahead (`7d`) is counted from the present end. Nodes keep the hash."""
        ports = self._ports
        with ports.audit.judging(viewer, "extend access", site=asked.site):
            site, _ = self._protected(viewer, asked.site, "extend access")
            ours = [
                each
                for each in ports.queries.access(viewer, site)
                if each.user == asked.user and each.state == "granted" and each.until is not None
            ]
            if not ours:
                raise ActionRefused(
                    f"no node has reported an access of {asked.user[:80]!a} that could be extended",
                    "grant it anew, with a new password",
                    status=409,
                )
            ends = [each.until for each in ours if each.until is not None]
            until = self._until(asked, max(ports.now(), *ends))
            message = grant_message(*(ports.trust(), site, asked.user), until=until, by=viewer.name, now=ports.now())
            self._ask(message, viewer)
        self._note(viewer, "extend access", site, message.summary)
        end = f" until {until.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if until is not None else ""
        detail = f"The nodes were asked to let {asked.user} in{end}. The password stays."
        return ActionOutcome(state="asked", site=site, detail=detail)

    def revoke(self, viewer: Viewer, site: str, user: str) -> ActionOutcome:
        """See `AccessActions`."""
        ports = self._ports
        with ports.audit.judging(viewer, "revoke access", site=site):
            name = site_named(site)
            require(viewer, name, "live", "revoke access")
            try:
                message = revoke_message(*(ports.trust(), name, user), by=viewer.name, now=ports.now())
            except UsageError as error:
                raise ActionRefused(error.problem, error.remedy, status=422, user=error.problem) from error
            known = any(each.user == user for each in ports.queries.access(viewer, name))
            self._publish(message)
            self._kept.end(name, user)
        self._note(viewer, "revoke access", name, message.summary)
        notes = () if known else (f"No node had reported an access of {user}.",)
        return ActionOutcome(state="asked", site=name, detail=f"The nodes were asked to keep {user} out.", notes=notes)

    def _protected(self, viewer: Viewer, text: str, what: str) -> tuple[SiteName, tuple[str, ...]]:
        """Return a protected site on which a viewer may do something, and its nodes.

        Raises:
            ActionRefused: they may not, or no node says that it protects the site.
        """
        site = site_named(text)
        require(viewer, site, "live", what)
        nodes = self._ports.queries.protected(viewer).get(site, ())
        if not nodes:
            problem = f"no node says that it protects site {site}"
            raise ActionRefused(
                problem,
                "it must be in [access.sites] of a node that runs `deploykit run agent access`",
                status=422,
                site=problem,
            )
        return site, nodes

    def _until(self, asked: GrantAsked, start: datetime | None = None) -> datetime | None:
        text, now = asked.until.strip(), self._ports.now()
        if not text:
            return None
        try:
            until = parse_moment(text, start or now)
        except UsageError as error:
            raise ActionRefused(error.problem, error.remedy, status=422, until=error.problem) from error
        if until <= now:
            problem = f"{until.astimezone(UTC):%Y-%m-%d %H:%M} UTC is over"
            raise ActionRefused(problem, "give a later time", status=422, until=problem)
        return until

    def _ask(self, message: AccessGrantRequested, viewer: Viewer) -> None:
        """Publish a grant; before that it is kept, so that it is seen where nobody answers, or this process ends now.

        Raises:
            BusError: it was not sent, and is not kept.
        """
        until = message.until.timestamp() if message.until is not None else None
        kept = KeptAccess(
            request=message.id,
            site=message.site,
            user=message.user,
            password_hash="",
            until=until,
            asked_by=viewer.name,
        )
        self._kept.add(kept)
        try:
            self._publish(message)
        except BusError:
            self._kept.end(message.site, message.user)
            raise

    def _publish(self, message: AccessCommandMessage) -> None:
        settings = self._ports.settings
        frame = sign(encode(message), self._ports.signer())
        self._ports.bus.publish(topic_of(message, settings.topics), frame, timeout=settings.broker.connect_timeout)

    def _note(self, viewer: Viewer, action: str, site: str, detail: str) -> None:
        self._ports.audit.done(viewer, action, detail, site=site, decision="asked")


def access_rows(
    known: Sequence[NodeAccess],
    kept: Sequence[KeptAccess],
    protected: Mapping[str, tuple[str, ...]],
    now: datetime,
) -> tuple[AccessRow, ...]:
    """Return who may see which site, one row for each user of a site. Pure.

    Args:
        known: by what nodes reported.
        kept: what was asked for from consoles; of those, the ones without any answer are shown.
        protected: the nodes of each site.
        now: aware.
    """
    rows: dict[tuple[str, str], list[NodeAccess]] = {}
    for each in known:
        rows.setdefault((each.site, each.user), []).append(each)
    for grant in kept:
        recent = grant.asked >= (now - _UNANSWERED).timestamp()
        if not recent or (grant.until is not None and grant.until <= now.timestamp()):
            continue
        reported = {each.node: each for each in rows.get((grant.site, grant.user), ())}
        nodes = dict.fromkeys((*protected.get(grant.site, ()), *reported))
        rows[grant.site, grant.user] = [_with_grant(node, reported.get(node), grant) for node in nodes]
    return tuple(_row(site, user, nodes) for (site, user), nodes in sorted(rows.items()))


def _with_grant(node: str, reported: NodeAccess | None, grant: KeptAccess) -> NodeAccess:
    """Return an access on a node after a grant: what the node has reported since, else that it is asked for."""
    if reported is not None:
        since = reported.reported.timestamp() if reported.reported is not None else 0.0
        # A node describes itself now and then, and may have done so in the moment before it obeyed.
        return (
            reported
            if reported.answered == grant.request or since > grant.asked + _MOMENT
            else attrs.evolve(reported, asked=grant.request)
        )
    until = datetime.fromtimestamp(grant.until, UTC) if grant.until is not None else None
    return NodeAccess(
        site=grant.site,
        user=grant.user,
        node=node,
        state="asked",
        until=until,
        requested_by=grant.asked_by,
        asked=grant.request,
    )


def _row(site: str, user: str, nodes: Sequence[NodeAccess]) -> AccessRow:
    ends = [each.until for each in nodes if each.state == "granted"] or [each.until for each in nodes]
    return AccessRow(
        site=site,
        user=user,
        until=None if None in ends else max(end for end in ends if end is not None),
        requested_by=next((each.requested_by for each in nodes if each.requested_by), ""),
        nodes=tuple((each.node, "asked" if each.asked else each.state) for each in nodes),
        problems=tuple((each.node, each.detail) for each in nodes if each.detail and not each.asked),
    )


__all__ = ["AccessKept", "ConsoleAccess", "access_rows"]
