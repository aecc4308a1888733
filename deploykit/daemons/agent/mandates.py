"""`RolloutApproved` on one node: judged as it comes, kept, and judged again for each command under it.

Rules:

* A mandate for another node, or for a site that is not here, is left alone.
* It is judged with the keys that are trusted now, when it comes and at each use: a signer may be revoked meanwhile.
* Signatures of one body are collected. One that does not count takes nothing away.
* Copies of what is known cost neither a signature check nor a reading of 10,000 names.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Final

import attrs

from deploykit.bus import Ack, Verdict
from deploykit.daemons.agent.mandate_asks import ApprovalAsker, remember
from deploykit.daemons.agent.mandate_audit import MandateAudit
from deploykit.daemons.agent.mandatestore import KeptMandate, MandateStore, StoredMandate, digest_of
from deploykit.daemons.agent.reports import Reporter
from deploykit.daemons.agent.rollouts import RolloutMemory
from deploykit.daemons.service.auditing import AuditWriter
from deploykit.errors import KeyFileError, MessageError, PolicyRefused, SignatureError
from deploykit.messages import DeployRequested, RolloutApproved, utc_now
from deploykit.names import NodeName, SiteName
from deploykit.settings.node import Settings
from deploykit.settings.site import NodeSiteSettings
from deploykit.trust.check import Trust, Verified
from deploykit.trust.mandate import Mandate, Requirement
from deploykit.trust.signature import (
    HEADER,
    MAX_SIGNATURES,
    Signer,
    Signers,
    decode_headers,
    frame_digest,
)
from deploykit.trust.sshsig import decode_header, encode_header
from deploykit.wire import CONTENT_TYPE, Frame, decode

_log = logging.getLogger(__name__)

#: Seconds for which a command waits for its mandate before the node asks: it often comes on another topic, just behind.
WAIT: Final = 3.0
#: Most commands that wait so at once: the others must find somebody who obeys them.
_MOST_WAITING: Final = 3
#: Most signatures that are kept of one mandate: more than a header holds, for the keys of one person could fill that.
_MOST_SIGNATURES: Final = 16


@attrs.frozen(kw_only=True, slots=True)
class WeighedMandate:
    """A mandate that is here, as its signatures count now.

    Args:
        mandate: with those signers that count.
        doubts: why other signatures of it do not.
    """

    mandate: Mandate
    doubts: tuple[str, ...] = ()


class Mandates:
    """The mandates of one node: takes them in, finds them, and asks for those that lack. Use it from any thread.

    Args:
        node: who we are.
        sites: of this node.
        store: where they are kept.
        trust: judges who signed.
        reporter: queues what is asked.
        audit: where it is recorded which mandates count.
        now: the wall clock, aware UTC.
        wait: seconds for which a command waits for its mandate before the node asks.

    Attributes:
        waiting: how many commands wait so now.
    """

    def __init__(
        self,
        node: NodeName,
        sites: Mapping[SiteName, NodeSiteSettings],
        store: MandateStore,
        trust: Trust,
        reporter: Reporter,
        audit: MandateAudit,
        now: Callable[[], datetime],
        *,
        wait: float,
    ) -> None:
        self.node = node
        self._sites = sites
        self.store = store
        self.trust = trust
        self.asks = ApprovalAsker(node, reporter)
        self._audit = audit
        self._now = now
        self._wait = wait
        self.waiting = 0
        self._lock = threading.Lock()
        self._taking = threading.Lock()
        self._seen: dict[str, int] = {}
        self._foreign: dict[str, None] = {}

    # -- what comes ----------------------------------------------------------------------------------------------------

    def is_copy(self, frame: Frame) -> bool:
        """Return whether a frame adds nothing to what is known; it need be neither verified nor read."""
        parts = frame.headers.get(HEADER, "").split(",")
        if len(parts) > MAX_SIGNATURES:
            return False
        digest = digest_of(frame.body)
        if digest in self._foreign or self.store.knows(digest, parts):
            return True
        # What was lost since, or counted for nothing then, is taken in again, if it was asked for.
        if self._seen.get(frame_digest(frame)) != self.asks.count(digest):
            return False
        return digest in self.store or not self.asks.count(digest)

    def rescue(self, frame: Frame, problem: SignatureError) -> bool:
        """Take in a mandate of which not every signature is good: each good one stands for itself.

        Args:
            frame: did not pass `Trust.check`.
            problem: why.

        Returns:
            Whether it was a mandate with a good signature.
        """
        digest = digest_of(frame.body)
        self.asks.refused(digest, str(problem))
        if "," not in frame.headers.get(HEADER, ""):
            return False
        try:
            good = self._signers(frame)
            message = decode({"content-type": CONTENT_TYPE}, frame.body) if good else None
        except (SignatureError, KeyFileError, MessageError):
            return False
        if not isinstance(message, RolloutApproved):
            return False
        signers = Signers(each=tuple(signer for _, (signer, _) in sorted(good.items())))
        self.handle(Verified(message=message, signer=signers, frame=frame, node=self.node, policy=self.trust.policy))
        return True

    def handle(self, command: Verified) -> Verdict:
        """Take in a genuine mandate for this node."""
        approved = command.message
        if not isinstance(approved, RolloutApproved):
            return Ack()
        if approved.site not in self._sites or self.node not in approved.nodes:
            with self._lock:
                remember(self._foreign, digest_of(command.frame.body), None)
            return Ack()
        try:
            with self._taking:  # or of two copies with different signatures one would be lost
                self._take_in(approved, command, self._now())
        except KeyFileError as error:  # it was verified a moment ago
            _log.warning("cannot judge a mandate, it is asked for when it is needed: %s", error)
        return Ack()

    def _take_in(self, approved: RolloutApproved, command: Verified, now: datetime) -> None:
        body = command.frame.body
        digest = digest_of(body)
        asked = self.asks.count(digest)
        stored = self.store.signatures(digest)
        good, why = dict[str, tuple[Signer, str]](), dict[str, str]()
        for key, each in (*self._weighed(body, stored.values(), now).items(), *self._signers(command.frame).items()):
            objection = self._objection(approved, digest, each[0], command, now)
            # Anybody can put another certificate of the same key into a copy: one that says less takes nothing away.
            if key not in good or (not objection, _width(each[0])) > (not why[key], _width(good[key][0])):
                good[key], why[key] = each, objection
        counting = [key for key in good if not why[key]]
        # Those that do not count stand behind the others: the refusal of a command says why, and a key may count again.
        texts = {**{key: good[key][1] for key in (*counting, *good)}, **stored}
        texts |= {key: text for key, (_, text) in good.items()}
        kept = dict(list(texts.items())[:_MOST_SIGNATURES])
        mandate = KeptMandate.of(approved, body, kept, now, counting=counting)
        if counting:
            if self.store.keep(mandate, now):
                signers = Signers(each=tuple(good[key][0] for key in sorted(kept) if key in good))
                self._note_kept(command, approved, digest, signers, now)
        elif self.store.hold(mandate):
            objection = next(iter(why.values()), "no signature of it counts any more")
            if self._audit.denied(approved, command.signer, digest, objection):
                _log.warning("does not count: %s, signed %s: %s", approved.summary, command.signer, objection)
        with self._lock:
            remember(self._seen, frame_digest(command.frame), asked)

    def _objection(
        self, approved: RolloutApproved, digest: str, signer: Signer, command: Verified, now: datetime
    ) -> str:
        """Return why one signature does not count by itself. Who may leave builds out is asked of all together."""
        alone = attrs.evolve(approved, without_build=False)
        try:
            command.policy.judge_mandate(
                Mandate(message=alone, signers=Signers(each=(signer,)), digest=digest), Requirement(), now
            )
        except PolicyRefused as error:
            return str(error)
        return ""

    def _signers(self, frame: Frame) -> dict[str, tuple[Signer, str]]:
        """Return the good signatures of a frame as in its header, and who made each, by the key's fingerprint."""
        texts = map(encode_header, decode_headers(frame.headers[HEADER]))
        return self._weighed(frame.body, texts, self._now())

    def _weighed(self, body: bytes, texts: Iterable[str], now: datetime) -> dict[str, tuple[Signer, str]]:
        each = tuple(texts)
        weighed = self.trust.weigh(body, [decode_header(text) for text in each], now)
        return {
            signer.fingerprint: (signer, text)
            for signer, text in zip(weighed, each, strict=True)
            if isinstance(signer, Signer)
        }

    def _note_kept(
        self, command: Verified, approved: RolloutApproved, digest: str, signers: Signers, now: datetime
    ) -> None:
        why = "it counts"
        try:
            requirement = Requirement.of(self._sites[approved.site])
            command.policy.judge_mandate(Mandate(message=approved, signers=signers, digest=digest), requirement, now)
        except PolicyRefused as error:
            why = f"kept, and not enough yet: {error}"
        _log.info("%s, signed %s: %s", approved.summary, signers, why)
        self._audit.kept(approved, signers, digest, why)

    # -- what is looked for --------------------------------------------------------------------------------------------

    def needs(self, request: DeployRequested) -> NodeSiteSettings | None:
        """Return the settings of a command's site where a mandate is concerned: it asks for one, or one is named."""
        site = self._sites.get(request.site)
        concerned = site is not None and (site.needs_mandate or request.mandate is not None)
        return site if concerned and request.phase != "discard" else None

    def find(self, digest: str, *, wait: bool = False) -> StoredMandate | None:
        """Return a mandate; None where it is not here.

        Args:
            digest: its name.
            wait: it may be just behind on another topic; wait some seconds for it.
        """
        found = self.store.find(digest)
        if found is not None or not wait:
            return found
        with self._lock:
            if self.waiting >= _MOST_WAITING:
                return None
            self.waiting += 1
        try:
            return self.store.find(digest, wait=self._wait)
        finally:
            with self._lock:
                self.waiting -= 1

    def weigh(self, stored: StoredMandate, now: datetime) -> WeighedMandate:
        """Return a mandate with the signers that count now.

        Raises:
            KeyFileError: whom to believe cannot be found out now.
        """
        texts = stored.kept.signatures.values()
        weighed = self.trust.weigh(stored.body, [decode_header(text) for text in texts], now)
        good = sorted((each for each in weighed if isinstance(each, Signer)), key=lambda signer: signer.fingerprint)
        doubts = [str(each) for each in weighed if isinstance(each, SignatureError)]
        if refused := self.asks.why_refused(stored.kept.digest):
            doubts.append(refused)
        return WeighedMandate(
            mandate=Mandate(message=stored.message, signers=Signers(each=tuple(good)), digest=stored.kept.digest),
            doubts=tuple(dict.fromkeys(doubts)),
        )

    def flush(self, now: float) -> None:
        """Record what was counted since; `now` in monotonic seconds, infinite at the end."""
        self._audit.flush(now)

    def prune(self) -> int:
        """Forget mandates that ended a day ago; return how many."""
        return self.store.prune(self._now())


def mandates_of(
    settings: Settings,
    trust: Trust,
    reporter: Reporter,
    writer: AuditWriter,
    rollouts: RolloutMemory,
    *,
    now: Callable[[], datetime] = utc_now,
    wait: float | None = None,
) -> Mandates:
    """Return the mandates of the node whose settings are given; the arguments are those of `Mandates`.

    Args:
        writer: writes the audit.
        rollouts: tells under which mandates commands were obeyed.
        wait: `WAIT` by default.
    """

    def needed(mandate: KeptMandate) -> bool:
        return mandate.digest in rollouts.get(SiteName(mandate.site), mandate.rollout).mandates

    store = MandateStore(settings.state / "mandates", needed)
    audit = MandateAudit(writer, settings.node)
    return Mandates(
        settings.node, settings.sites, store, trust, reporter, audit, now, wait=WAIT if wait is None else wait
    )


def _width(signer: Signer) -> int:
    """Return as how many names a signer may sign."""
    return len({name for patterns in signer.principals for name in patterns})
