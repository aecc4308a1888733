"""Whether a command lies inside a mandate, where its site asks for one or the command names one.

Rules:

* A command that names a mandate is obeyed only inside it. A site that asks for one obeys no command without.
* Whether enough people signed is judged with the keys that are trusted now, at the claim and when the turn has come.
* Times are judged by the instant of the claim: a mandate that ends while a command runs stops nothing half-way.
* Where a node may go back to is read from the site, under its lock.
* A mandate that has too few signatures here is asked for once more, and one that is not here three times. Until then
  the command waits at its sender; after that it is refused.
* What was carried out before is answered from the records. `discard` puts nothing live and needs no mandate.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Final

from deploykit.daemons.agent.guards import AuthorizedCommand, CommandGuard, Objection
from deploykit.daemons.agent.mandates import Mandates, WeighedMandate
from deploykit.daemons.agent.mandatestore import StoredMandate, is_digest
from deploykit.daemons.agent.rollout_guard import carried_out
from deploykit.daemons.agent.sitestates import named_release, operation_of
from deploykit.errors import DeploykitError, KeyFileError, PolicyRefused
from deploykit.messages import DeployRequested, SiteRelease
from deploykit.release import DeployResult, Runner, Site
from deploykit.settings.site import NodeSiteSettings
from deploykit.trust.mandate import Requirement, inside

_log = logging.getLogger(__name__)

#: How often a mandate is asked for because of one command.
_ASK_AT_MOST: Final = 3
_PROPOSE: Final = "propose the rollout with `deploykit deploy --propose`, and have it approved"
_BROADCAST: Final = "does the coordinator run, and may this node's key speak to it?"


class MandateGuard(CommandGuard):
    """Asked about one command that names a mandate, or needs one.

    Args:
        asked: the command.
        site: its settings.
        mandates: of the node.
    """

    def __init__(self, asked: AuthorizedCommand, site: NodeSiteSettings, mandates: Mandates) -> None:
        self._asked = asked
        self._site = site
        self._mandates = mandates
        self._stored: StoredMandate | None = None
        self._details: dict[str, str] = {}

    @classmethod
    def of(cls, asked: AuthorizedCommand, mandates: Mandates) -> CommandGuard:
        """Return the guard of a command; one that objects to nothing where no mandate is concerned."""
        site = mandates.needs(asked.request)
        return cls(asked, site, mandates) if site is not None else CommandGuard()

    @property
    def details(self) -> Mapping[str, str]:
        """Who signed the mandate."""
        return self._details

    def enter(self, now: datetime) -> Objection | None:
        """Return why the command is not obeyed: without a mandate, outside of it, or before it is here."""
        if self._asked.claimed_at is not None and self._carried_out():
            return None
        if why := self._malformed():
            return Objection(why=why)
        return self._judge(self._asked.request.mandate or "", now)

    def objection(self, site: Site, now: datetime) -> str:
        """Return why the command may not begin now: its mandate does not count any more, or not for this way back."""
        request = self._asked.request
        if carried_out(request, site):
            return ""
        if why := self._malformed():
            return why
        stored = self._mandates.find(request.mandate or "") or self._stored
        if stored is None:
            return f"{self._named_mandate} is not here any more: send the command again under another id"
        try:
            weighed = self._weigh(stored, now)
        except KeyFileError as error:
            _log.error("mandate of %s: %s", request.summary, error)
            return "its mandate cannot be judged on this node now; see the log of its agent, and ask again"
        if why := self._not_enough(weighed):
            return why
        seen = Runner(site).with_site_state(DeployResult(outcome="success"))
        return self._outside(
            weighed,
            previous=named_release(seen.previous),
            live=named_release(seen.live),
            went_back=_ways_back(request, site),
        )

    # -- the decisions -------------------------------------------------------------------------------------------------

    def _malformed(self) -> str:
        """Return why the command names no mandate that there could be."""
        request = self._asked.request
        if request.mandate is None:
            needed = Requirement.of(self._site)
            return f"site {request.site} needs the approval of {needed}, and the command names none: {_PROPOSE}"
        if not is_digest(request.mandate):
            return "what the command names as its mandate is no digest: hex SHA-256 of the mandate's body"
        if request.rollout is None:
            return "the command names a mandate and no rollout"
        return ""

    def _judge(self, digest: str, now: datetime) -> Objection | None:
        request = self._asked.request
        self._stored = self._mandates.find(digest, wait=True)
        if self._stored is None:
            return self._missing(digest)
        try:
            weighed = self._weigh(self._stored, now)
        except KeyFileError as error:
            return Objection(why=f"its mandate cannot be judged now: {error}", missing=True)
        target = SiteRelease(release="", ref=request.ref, commit=request.commit, parts=request.parts)
        if why := self._outside(weighed, previous=None, live=target):
            return Objection(why=why)
        if not (why := self._not_enough(weighed)):
            return None
        # Anybody can send a copy of the command, before the answer can be here: that refuses nothing.
        if self._mandates.asks.times(request, digest) and not self._mandates.asks.waits(digest):
            return Objection(why=why)
        self._mandates.asks.ask(request, digest, self._asked.command.key)
        return Objection(why=f"{why}; the mandate was asked for again", missing=True)

    def _missing(self, digest: str) -> Objection:
        request = self._asked.request
        before = self._mandates.asks.times(request, digest)
        if before < _ASK_AT_MOST:
            self._mandates.asks.ask(request, digest, self._asked.command.key)
            return Objection(why=f"{self._named_mandate} is not here: it was asked for", missing=True)
        refused = self._mandates.asks.why_refused(digest)
        why = f"; the last copy of it was refused: {refused}" if refused else f"; {_BROADCAST}"
        return Objection(why=f"{self._named_mandate} is not here, though it was asked for {before} times{why}")

    @property
    def _named_mandate(self) -> str:
        return f"the mandate of rollout {self._asked.request.rollout} ({(self._asked.request.mandate or '')[:12]})"

    def _weigh(self, stored: StoredMandate, now: datetime) -> WeighedMandate:
        weighed = self._mandates.weigh(stored, now)
        self._details["approved_by"] = str(weighed.mandate.signers)
        return weighed

    def _outside(
        self,
        weighed: WeighedMandate,
        *,
        previous: SiteRelease | None,
        live: SiteRelease | None,
        went_back: Collection[SiteRelease] = (),
    ) -> str:
        asked = self._asked
        return inside(
            *(weighed.mandate, asked.request, asked.command.node, self._asked.judged_at, previous, live),
            skew=asked.command.policy.skew,
            went_back=went_back,
        )

    def _not_enough(self, weighed: WeighedMandate) -> str:
        """Return why the mandate does not count by those who signed it."""
        try:
            self._asked.command.policy.judge_mandate(weighed.mandate, Requirement.of(self._site), self._asked.judged_at)
        except PolicyRefused as error:
            return "; ".join((str(error), *weighed.doubts))
        return ""

    def _carried_out(self) -> bool:
        """Return whether the site has an end of this command on record; then `objection` has the last word."""
        try:
            return carried_out(self._asked.request, Site(self._site.path, self._site.release))
        except DeploykitError:
            return False


def _ways_back(request: DeployRequested, site: Site) -> tuple[SiteRelease, ...]:
    """Return where other commands of this command's rollout took the site back, or tried to."""
    found = []
    record = site.recorded()
    for each in record.operations:
        ours = each.rollout == request.rollout and each.request != request.id
        if ours and each.phase == "rollback" and each.outcome != "refused":
            there = operation_of(each, record)
            found.append(SiteRelease(release=there.release, ref=there.ref, commit=there.commit, parts=there.parts))
    return tuple(found)
