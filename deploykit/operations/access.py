"""Grant, extend, revoke and list who may see protected sites: ask the nodes, and wait for each one's own report.

Rules:

* The password is made here and leaves this process as a hash only.
* A command is for all nodes that protect the site, also those that are off now: it waits for them at the broker.
* Nothing is granted before a node's report says so, signed by a key that may speak for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final

import attrs

from deploykit.bus import Bus
from deploykit.errors import ConnectError, NobodyMatches
from deploykit.fleet.selection import Selection
from deploykit.messages import AccessGrantRequested, AccessReported, AccessRevokeRequested, NodeDescribed
from deploykit.messages.topics import topic_of
from deploykit.names import NodeName, SiteName
from deploykit.operations.accesshearing import AccessReportHearing
from deploykit.operations.accessmessages import AccessCommandMessage, grant_message, revoke_message
from deploykit.operations.deploy import load_report_trust
from deploykit.operations.keychoice import asking_key
from deploykit.operations.nodes import DISCOVERY_TIMEOUT, FoundNodes, find_nodes
from deploykit.settings.node import Settings
from deploykit.system.passwordmaking import make_password
from deploykit.trust.check import Trust
from deploykit.trust.signature import BodySigner, sign
from deploykit.wire import encode

#: Seconds to wait for reports: a burst, a test and a reload of the server.
REPORT_TIMEOUT: Final = 30.0
_AT_MOST: Final = 30.0
_OUTCOMES: Final = {AccessGrantRequested: "granted", AccessRevokeRequested: "revoked"}


@attrs.frozen(kw_only=True, slots=True)
class AccessOutcome:
    """What became of a command.

    Args:
        message: what was published.
        reports: of the nodes that answered, by name.
        silent: nodes that protect the site and did not answer in time.
        password: of a new grant; shown once, kept nowhere.
        notes: lines for the person.
    """

    message: AccessCommandMessage
    reports: Mapping[NodeName, AccessReported]
    silent: tuple[NodeName, ...] = ()
    password: str = attrs.field(default="", repr=False)
    notes: tuple[str, ...] = ()

    @property
    def done(self) -> tuple[NodeName, ...]:
        """The nodes on which it was done."""
        wanted = _OUTCOMES[type(self.message)]
        return tuple(node for node, report in self.reports.items() if report.outcome == wanted)

    @property
    def exit_code(self) -> int:
        """0 where it was done on all nodes, 3 where all that answered refused, else 1."""
        if self.done and len(self.done) == len(self.reports) and not self.silent:
            return 0
        refused = bool(self.reports) and all(each.outcome == "refused" for each in self.reports.values())
        return 3 if refused and not self.silent else 1


@attrs.frozen(kw_only=True, slots=True)
class AccessOnNodes:
    """Who may see a site, and on which nodes until when; None: for ever, by somebody else's hand."""

    site: SiteName
    user: str
    nodes: Mapping[NodeName, datetime | None]
    requested_by: str = ""

    @property
    def until(self) -> datetime | None:
        """The latest end; None where one node has none."""
        ends = list(self.nodes.values())
        return None if None in ends else max(each for each in ends if each is not None)


def protecting(found: FoundNodes, site: SiteName) -> tuple[NodeName, ...]:
    """Return the nodes that protect a site."""
    return tuple(each.node for each in found.nodes if site in each.protects)


def ask_access(
    settings: Settings,
    bus: Bus,
    key: BodySigner,
    message: AccessCommandMessage,
    *,
    password: str = "",
    timeout: float = REPORT_TIMEOUT,
    discovery_timeout: float = DISCOVERY_TIMEOUT,
    trust: Trust | None = None,
    on_node: Callable[[NodeDescribed], object] | None = None,
) -> AccessOutcome:
    """Publish a command, signed, and return what each node that protects the site reports.

    Args:
        settings: of this machine.
        bus: connected.
        key: signs it. Where a person must touch it, the settings' key asks the nodes.
        message: the command; its audience is who is waited for, else whoever says that it protects the site.
        password: of a new grant, for the outcome.
        timeout: seconds to wait for reports.
        discovery_timeout: seconds to wait for nodes to say what they protect.
        trust: judges answers; the settings' when None.
        on_node: called with each node that answers the question.

    Raises:
        NobodyMatches: no node says that it protects the site; nothing was sent.
        PolicyRefused: no answer could be believed.
        KeyFileError: a key cannot be used.
        BusError: the broker does not take it.
    """
    believes = trust or load_report_trust(settings)
    notes: list[str] = []
    expected = tuple(message.audience or ())
    if message.audience is None:
        found = _find(settings, bus, message.site, asking_key(settings, key), believes, discovery_timeout, on_node)
        expected = protecting(found, message.site)
        notes += found.notes
        if not expected:
            raise NobodyMatches(
                f"no node answered that it protects site {message.site}, so nothing was sent",
                "does a node with it in [access.sites] run `deploykit run agent access`, and does your grant of "
                "node.queried name the site? Else name the node: --node NAME",
            )
    reports, doubts = _publish(settings, bus, key, message, expected, believes, timeout)
    return AccessOutcome(
        message=message,
        reports=dict(sorted(reports.items())),
        silent=tuple(node for node in expected if node not in reports),
        password=password,
        notes=tuple(dict.fromkeys((*notes, *doubts))),
    )


def grant_access(
    settings: Settings,
    bus: Bus,
    key: BodySigner,
    site: SiteName,
    user: str,
    *,
    until: datetime | None = None,
    extend: bool = False,
    nodes: Sequence[NodeName] = (),
    timeout: float = REPORT_TIMEOUT,
    discovery_timeout: float = DISCOVERY_TIMEOUT,
    trust: Trust | None = None,
    on_node: Callable[[NodeDescribed], object] | None = None,
) -> AccessOutcome:
    """Let a user see a site, with a new password; with `extend` the one they have stays. See `ask_access`.

    Raises:
        UsageError: the name or the end cannot be meant.
    """
    believes = trust or load_report_trust(settings)
    password = "" if extend else make_password()
    message = grant_message(believes, site, user, password=password, until=until, nodes=nodes)
    return ask_access(
        *(settings, bus, key, message),
        password=password,
        timeout=timeout,
        discovery_timeout=discovery_timeout,
        trust=believes,
        on_node=on_node,
    )


def revoke_access(
    settings: Settings,
    bus: Bus,
    key: BodySigner,
    site: SiteName,
    user: str,
    *,
    nodes: Sequence[NodeName] = (),
    timeout: float = REPORT_TIMEOUT,
    discovery_timeout: float = DISCOVERY_TIMEOUT,
    trust: Trust | None = None,
    on_node: Callable[[NodeDescribed], object] | None = None,
) -> AccessOutcome:
    """End an access. Arguments and errors: as for `grant_access`."""
    believes = trust or load_report_trust(settings)
    message = revoke_message(believes, site, user, nodes=nodes)
    return ask_access(
        *(settings, bus, key, message),
        timeout=timeout,
        discovery_timeout=discovery_timeout,
        trust=believes,
        on_node=on_node,
    )


def list_access(
    settings: Settings,
    bus: Bus,
    key: BodySigner,
    site: SiteName | None = None,
    *,
    timeout: float = DISCOVERY_TIMEOUT,
    trust: Trust | None = None,
    on_node: Callable[[NodeDescribed], object] | None = None,
) -> tuple[tuple[AccessOnNodes, ...], FoundNodes]:
    """Return who may see a site, or any site, by site and user; and the nodes that answered.

    Raises:
        PolicyRefused: no answer could be believed.
        ConnectError: the connection is or was lost.
    """
    believes = trust or load_report_trust(settings)
    found = _find(settings, bus, site, asking_key(settings, key), believes, timeout, on_node)
    return listed(found.nodes), found


def listed(nodes: Sequence[NodeDescribed]) -> tuple[AccessOnNodes, ...]:
    """Return who may see which site, by what nodes say."""
    rows: dict[tuple[SiteName, str], dict[NodeName, datetime | None]] = {}
    by: dict[tuple[SiteName, str], str] = {}
    for node in nodes:
        for each in node.access:
            rows.setdefault((each.site, each.user), {})[node.node] = each.until
            if each.requested_by:
                by.setdefault((each.site, each.user), each.requested_by)
    return tuple(
        AccessOnNodes(site=site, user=user, nodes=found, requested_by=by.get((site, user), ""))
        for (site, user), found in sorted(rows.items())
    )


def _find(
    settings: Settings,
    bus: Bus,
    site: SiteName | None,
    key: BodySigner,
    trust: Trust,
    timeout: float,
    on_node: Callable[[NodeDescribed], object] | None,
) -> FoundNodes:
    return find_nodes(
        settings,
        bus,
        Selection(everybody=True),
        details=("access",),
        site=site,
        timeout=timeout,
        key=key,
        trust=trust,
        on_node=on_node,
    )


def _publish(
    settings: Settings,
    bus: Bus,
    key: BodySigner,
    message: AccessCommandMessage,
    expected: Sequence[NodeName],
    trust: Trust,
    timeout: float,
) -> tuple[dict[NodeName, AccessReported], list[str]]:
    """Publish a command and return the reports that are believed, and why others are not."""
    frame = sign(encode(message), key)
    hearing = AccessReportHearing(trust, message, frame)
    subscription = bus.subscribe(settings.topics.report, hearing.take, on_failure="drop")
    try:
        if not subscription.wait_active(_AT_MOST):
            raise ConnectError("no broker reachable in time: nothing was sent", "try again")
        bus.publish(topic_of(message, settings.topics), frame, timeout=settings.broker.connect_timeout)
        return hearing.collect(expected, time.monotonic() + timeout)
    finally:
        subscription.unsubscribe()


__all__ = [
    "AccessOnNodes",
    "AccessOutcome",
    "ask_access",
    "grant_access",
    "list_access",
    "listed",
    "protecting",
    "revoke_access",
]
