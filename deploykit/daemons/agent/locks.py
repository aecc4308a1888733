"""The locks of one node's sites: judged, kept, in the audit, and asked about by every command.

    SiteLocked, SiteUnlocked -> `LockKeeper.take` -> judged -> kept -> audit -> Ack

Rules:

* A statement counts as soon as it is heard, also while the disk is full. When it is acknowledged, it is on the disk.
* One that does not count is not kept. It is in the audit, for somebody signed it who is known.
* What others should hear again, and when this node asks, is decided in `locksync.py`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterable
from datetime import datetime
from typing import Final

from deploykit.bus import Ack, Retry, Verdict
from deploykit.daemons.agent.lock_audit import LockAudit
from deploykit.daemons.agent.lockstore import KnownLocks, LockStore
from deploykit.errors import KeyFileError, LockStoreError, MessageError, PolicyRefused
from deploykit.messages import DeployRequested, Message, SiteLocked, SiteUnlocked, one_line, utc_now
from deploykit.messages.statement import SignedStatement
from deploykit.names import SiteName
from deploykit.trust.check import Trust, Verified
from deploykit.trust.locks import KnownStatement, LockBook, LockDecision, NotedStatement
from deploykit.trust.signature import Signers
from deploykit.trust.statements import statement_of

_log = logging.getLogger(__name__)

#: Seconds until a statement is written again that the disk had no room for.
_RETRY_AFTER: Final = 5.0
#: Seconds until a statement that this agent leaves comes again, to the next agent.
_HAND_BACK_AFTER: Final = 900.0


class LockKeeper:
    """Keeps what one node knows of the locks of its sites. Use it from any thread.

    Args:
        sites: of this node; statements on others are not its business.
        trust: judges the statements.
        store: where they are kept.
        audit: where they are recorded.
        ending: set when the agent ends.
        on_change: called when what is known has changed.
        now: the wall clock, aware UTC.

    Raises:
        LockStoreError: the store cannot be read.
    """

    def __init__(
        self,
        sites: Collection[SiteName],
        trust: Trust,
        store: LockStore,
        audit: LockAudit,
        *,
        ending: threading.Event,
        on_change: Callable[[], None] = lambda: None,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self.sites = frozenset(sites)
        self._store = store
        self._audit = audit
        self._ending = ending
        self._on_change = on_change
        self._now = now
        known = store.load()
        self._book = LockBook(trust, known.statements)
        self._connected = known.connected
        self._asked_about = known.sites
        self._unsaved = False
        self._lock = threading.Lock()

    # -- what is known -------------------------------------------------------------------------------------------------

    def decide(self, request: DeployRequested, signers: Iterable[Signers], now: datetime) -> LockDecision:
        """Return what the locks mean for a command; `signers`: whose right to override counts."""
        override = request.override_lock
        with self._lock:
            return self._book.decide(request.site, request.phase, now, signers=signers, override=override)

    def newest(self, site: SiteName) -> KnownStatement | None:
        """Return the statement that decides on a site; None where nothing is known."""
        with self._lock:
            return self._book.newest(site, self._now())

    def shown(self, site: SiteName) -> SignedStatement | None:
        """Return that statement's bytes, for a description of the node."""
        newest = self.newest(site)
        return newest.signed if newest is not None else None

    @property
    def serials(self) -> dict[SiteName, int]:
        """The serial of the statement that decides, of each site; zero where nothing is known."""
        newest = ((site, self.newest(site)) for site in sorted(self.sites))
        return {site: known.message.serial if known is not None else 0 for site, known in newest}

    @property
    def connected(self) -> datetime | None:
        """When the node was last connected, as far as that was noted; None for never."""
        return self._connected

    @property
    def asked_about_all(self) -> bool:
        """Whether the node has asked the others about each of its sites at some time."""
        return self._asked_about.issuperset(self.sites)

    # -- statements ----------------------------------------------------------------------------------------------------

    def take(self, stated: Verified) -> tuple[Verdict, NotedStatement | None]:
        """Take a genuine statement, if it is on one of this node's sites and counts.

        Returns:
            The verdict, and what became of it; None where it is not this node's business, or does not count.
        """
        message = stated.message
        if not isinstance(message, SiteLocked | SiteUnlocked) or message.site not in self.sites:
            return Ack(), None
        try:
            with self._lock:
                noted = self._book.add(statement_of(stated.frame), self._now())
                self._unsaved = self._unsaved or noted.news or noted.carried is not None
        except KeyFileError as error:
            _log.warning("cannot judge a statement on a lock, trying again: %s", error)
            return Retry(after=_RETRY_AFTER), None
        except (PolicyRefused, MessageError) as error:
            if self._audit.denied(message, stated, str(error)):
                _log.warning("does not count: %s: %s: %s", stated.signer, message.summary, error)
            return Ack(), None
        if noted.carried is not None:
            self._audit.noted(noted.carried, "an unlock carried it")
        if noted.news:
            _log.warning("%s, signed %s", message.summary, stated.signer)
            self._audit.noted(noted.statement, "it decides" if noted.newer is None else _decides(noted.newer))
        if noted.news or noted.carried is not None:
            self._on_change()
        return self._save_at_last(message), noted

    def _save_at_last(self, message: Message) -> Verdict:
        """Write what is known, until it is on the disk."""
        before = ""
        while True:
            try:
                with self._lock:
                    if self._unsaved:
                        self._save()
                return Ack()
            except LockStoreError as error:
                if str(error) != before:
                    what = "cannot keep a statement, it counts until the agent ends"
                    _log.error("%s: %s: %s", what, message.summary, error)
                before = str(error)
            if self._ending.wait(_RETRY_AFTER):
                return Retry(after=_HAND_BACK_AFTER)

    # -- what is noted besides -----------------------------------------------------------------------------------------

    def note_connected(self) -> None:
        """Note that the node is connected now."""
        self._connected = self._now()
        self._save_if_possible()

    def note_asked(self) -> None:
        """Note that the others were asked about every site."""
        self._asked_about = frozenset(map(str, self.sites))
        self._save_if_possible()

    def _save_if_possible(self) -> None:
        try:
            with self._lock:
                self._save()
        except LockStoreError as error:
            _log.warning("cannot note when this node was connected: %s", error)

    def _save(self) -> None:
        self._store.save(KnownLocks(statements=self._book.kept, sites=self._asked_about, connected=self._connected))
        self._unsaved = False


def _decides(statement: KnownStatement) -> str:
    return one_line(f"serial {statement.message.serial} of key {statement.signer.fingerprint} decides")
