"""What the actions on rollouts and locks work with, in one value."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import attrs

from deploykit.bus import Bus
from deploykit.errors import ActionRefused, InvalidName
from deploykit.messages import utc_now
from deploykit.names import SiteName, parse_site_name
from deploykit.operations.deploy import load_report_trust
from deploykit.operations.keychoice import KeyChoice
from deploykit.settings.node import Settings
from deploykit.trust.check import Trust
from deploykit.trust.signature import BodySigner
from deploykit.web.actions.auditing import ActionAudit
from deploykit.web.actions.choosing import NodesAsking
from deploykit.web.actions.hostport import RolloutDesk
from deploykit.web.projection.queries import Queries


@attrs.frozen(kw_only=True, slots=True)
class ActionPorts:
    """See above.

    Args:
        settings: of this machine.
        queries: what the bus has told; it may be old, or lost.
        kept: keeps and runs rollouts.
        bus: started; it may have no connection now.
        ask: asks nodes.
        key: the console's own, read once.
        audit: takes what was done and refused.
        now: the wall clock, aware UTC.
    """

    settings: Settings
    queries: Queries
    kept: RolloutDesk
    bus: Bus
    ask: NodesAsking
    key: KeyChoice
    audit: ActionAudit
    now: Callable[[], datetime] = utc_now

    def signer(self) -> BodySigner:
        """Return the console's own key; see `own_key`."""
        return own_key(self.settings, self.key)

    def trust(self) -> Trust:
        """Return whose answers and statements count now; see `console_trust`."""
        return console_trust(self.settings)


def own_key(settings: Settings, key: KeyChoice) -> BodySigner:
    """Return the console's own key.

    Raises:
        ActionRefused: 503: it has none.
        KeyFileError: it cannot be used.
    """
    if settings.signing_key is None:
        raise ActionRefused(
            "this console has no key, so it can sign nothing and ask no node", "set signing_key", status=503
        )
    return key.load(settings)


def console_trust(settings: Settings) -> Trust:
    """Return whose answers and statements count now.

    Raises:
        ActionRefused: 503: nobody's could.
        KeyFileError: the list of keys cannot be read.
    """
    if settings.trust.allowed_signers is None:
        raise ActionRefused("no node's answer could be believed", "set trust.allowed_signers", status=503)
    return load_report_trust(settings)


def site_named(text: str) -> SiteName:
    """Return a site's name.

    Raises:
        ActionRefused: 404: no site can have such a name.
    """
    try:
        return parse_site_name(text)
    except InvalidName:
        raise ActionRefused(f"there is no site {text[:80]!a}", "see the list of sites", status=404) from None


__all__ = ["ActionPorts", "console_trust", "own_key", "site_named"]
