"""What is known of the locks of sites: which statements count, which one decides, and what they forbid.

    SiteLocked, SiteUnlocked, signed -> `LockBook.add`    -> kept, if it counts
    command                          -> `LockBook.decide` -> why it is not obeyed, or which lock it overrides

Rules:

* Of the statements on a site the one with the highest (serial, id) counts. Copies of lower ones change nothing.
* It replaces a lock of somebody else only with the right `lock.release`. Until it may, both locks stand.
* Whenever the trusted files change, the kept bytes are judged anew: a revoked key has no say any more. What its
  statements had replaced counts again while it is kept.
* Of each key and of each site only the newest statements are kept.
* While the trusted files cannot be read, what counted before counts.

Pure but for the trusted files; not for several threads. The coordinator, `deploykit lock` and agents use the same book.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

import attrs

from deploykit.errors import KeyFileError, MessageError, PolicyRefused, UsageError
from deploykit.messages import SiteLocked, SiteUnlocked
from deploykit.messages.deploy import DeployPhase
from deploykit.messages.statement import SignedStatement
from deploykit.names import SiteName
from deploykit.trust.allowed_signers import AllowedSigners
from deploykit.trust.check import Trust
from deploykit.trust.lockrules import KnownStatement, judge, lock_problem
from deploykit.trust.rights import OVERRIDE
from deploykit.trust.signature import Signers

#: Most statements that are kept of one key, and in all, on one site.
KEPT_OF_KEY: Final = 4
KEPT_OF_SITE: Final = 32
#: The highest serial that the wire carries.
_LAST_SERIAL: Final = 2**53 - 1


@attrs.frozen(kw_only=True, slots=True)
class NotedStatement:
    """What became of a statement that was heard.

    Args:
        statement: the one that was heard.
        news: it was not known before, and is kept.
        newer: the statement that others should hear instead, because it counts and this one does not; None for none.
        carried: the lock that an unlock carries, if it was not known before and counts by itself.
    """

    statement: KnownStatement
    news: bool
    newer: KnownStatement | None
    carried: KnownStatement | None = None


@attrs.frozen(kw_only=True, slots=True)
class LockDecision:
    """What the locks of a site mean for one command.

    Args:
        objection: why it is not obeyed: who locked, why, until when; empty where it may be.
        lock: the lock that forbids it, or that it overrides; None where none does.
        overridden: why it is obeyed in spite of that lock; empty where it is not.
    """

    objection: str = ""
    lock: KnownStatement | None = None
    overridden: str = ""


class LockBook:
    """Statements on the locks of sites.

    Args:
        trust: keys and grants, as they are at each call.
        kept: what was kept before, with when it was first heard.
    """

    def __init__(self, trust: Trust, kept: Iterable[tuple[SiteName, SignedStatement, datetime]] = ()) -> None:
        self._trust = trust
        self._kept: dict[SiteName, list[tuple[SignedStatement, datetime]]] = {}
        self._judged_by: dict[SiteName, AllowedSigners] = {}
        self._counted: dict[SiteName, tuple[KnownStatement, ...]] = {}
        for site, signed, heard in kept:
            self._kept.setdefault(site, []).append((signed, heard))

    @property
    def kept(self) -> tuple[tuple[SiteName, SignedStatement, datetime], ...]:
        """All that is kept: what the next book should be made of."""
        return tuple((site, signed, heard) for site, rows in self._kept.items() for signed, heard in rows)

    @property
    def sites(self) -> tuple[SiteName, ...]:
        """The sites on which something is known."""
        return tuple(self._kept)

    def add(self, signed: SignedStatement, now: datetime) -> NotedStatement:
        """Take a statement that was heard, if it counts; of an unlock, also the lock that it carries.

        So all know of a lock that somebody lifted: it counts again when the key that lifted it has no say any more.

        Args:
            signed: its exact bytes.
            now: aware.

        Raises:
            PolicyRefused: it does not count; the text may be shown to anybody.
            SignatureError: no trusted key signed it.
            MessageError: it is no message.
            KeyFileError: the trusted files cannot be read now. Try again later.
        """
        heard = judge(signed, self._trust, now)
        carried = self._carried(heard, now)
        noted = self._take(heard, now)
        return attrs.evolve(noted, carried=carried)

    def _carried(self, heard: KnownStatement, now: datetime) -> KnownStatement | None:
        if not isinstance(heard.message, SiteUnlocked) or heard.message.locked is None:
            return None
        try:
            lock = judge(heard.message.locked, self._trust, now)
        except (MessageError, PolicyRefused):
            return None
        if lock.site != heard.site or not isinstance(lock.message, SiteLocked):
            return None
        return lock if self._take(lock, now).news else None

    def _take(self, heard: KnownStatement, now: datetime) -> NotedStatement:
        site = heard.site
        counting = self.counting(site, now)
        known, news = any(each.rank == heard.rank for each in counting), False
        if not known:
            self._kept.setdefault(site, []).append((heard.signed, now))
            counting = tuple(sorted((*counting, heard), key=lambda each: each.rank, reverse=True))
            self._bound(site, counting)
            kept = {row for row, _ in self._kept[site]}
            counting = tuple(each for each in counting if each.signed in kept)
            self._counted[site] = counting
            news = heard.signed in kept  # else so many higher ones are kept that it says nothing any more
        latest = self._decisive(counting, now)
        if latest is not None and (latest.rank == heard.rank or (known and latest.rank < heard.rank)):
            latest = None
        return NotedStatement(statement=heard, news=news, newer=latest)

    def counting(self, site: SiteName, now: datetime) -> tuple[KnownStatement, ...]:
        """Return the statements on a site that count at this moment, the newest first."""
        try:
            trusted = self._trust.trusted()
            if self._judged_by.get(site) is not trusted:
                found = filter(None, [self._judged(*row, now) for row in self._kept.get(site, ())])
                self._counted[site] = tuple(sorted(found, key=lambda each: each.rank, reverse=True))
                self._judged_by[site] = trusted
        except KeyFileError:  # what counted before counts on
            pass
        return self._counted.get(site, ())

    def _judged(self, signed: SignedStatement, heard: datetime, now: datetime) -> KnownStatement | None:
        try:
            return judge(signed, self._trust, now, heard=heard)
        except (MessageError, PolicyRefused):  # its key was revoked or lost its grant
            return None

    def newest(self, site: SiteName, now: datetime) -> KnownStatement | None:
        """Return the statement that decides, which nodes show and publish again; None where nothing is known.

        It is the highest lock that nobody replaced and that is not over; else the highest statement.
        """
        return self._decisive(self.counting(site, now), now)

    def in_force(self, site: SiteName, now: datetime) -> tuple[KnownStatement, ...]:
        """Return the locks of a site that are in force, the highest first; several are of different holders."""
        standing = _standing(self.counting(site, now))
        return tuple(each for each in standing if each.in_force(now, self._trust.policy.skew))

    def decide(
        self, site: SiteName, phase: DeployPhase, now: datetime, *, signers: Iterable[Signers], override: str = ""
    ) -> LockDecision:
        """Return what the locks of a site mean for a command.

        Args:
            site: the command's.
            phase: the command's.
            now: aware.
            signers: who signed the command, and who approved it: each may override by their own right.
            override: why the command is to be obeyed in spite of a lock; empty where it is not.
        """
        barring = [lock for lock in self.in_force(site, now) if not lock.lets_pass(phase)]
        if not barring:
            return LockDecision()
        text = f"site {site} is {' and '.join(map(str, barring))}"
        if not override.strip():
            remedy = "wait, unlock it, or say why not to wait with --override-lock REASON"
            return LockDecision(objection=f"{text}; {remedy}", lock=barring[0])
        policy = self._trust.policy
        for signer in signers:
            if policy.may(OVERRIDE, signer, site, (phase,)) or all(lock.is_holder(signer) for lock in barring):
                return LockDecision(lock=barring[0], overridden=override)
        remedy = "its holder may override it, or who has the grant lock.override"
        return LockDecision(objection=f"{text}; {remedy}", lock=barring[0])

    def next_serial(self, site: SiteName, now: datetime) -> int:
        """Return the serial of a new statement on a site, see `next_serial`.

        Raises:
            UsageError: there is no higher one.
        """
        highest = next(iter(self.counting(site, now)), None)
        return next_serial(None if highest is None else highest.message.serial, now)

    def _decisive(self, counting: tuple[KnownStatement, ...], now: datetime) -> KnownStatement | None:
        standing, skew = _standing(counting), self._trust.policy.skew
        locks = (each for each in standing if isinstance(each.message, SiteLocked) and not each.is_over(now, skew))
        return next(locks, standing[0] if standing else None)

    def _bound(self, site: SiteName, counted: tuple[KnownStatement, ...]) -> None:
        """Forget the lowest statements of a site, of the key that has most, while too many are kept.

        What does not count at this moment is kept while there is room: its grant may come back.
        """
        rows = self._kept[site]
        by_bytes = {each.signed: each for each in counted}
        while len(rows) > KEPT_OF_SITE and (lost := next((r for r in rows if r[0] not in by_bytes), None)):
            rows.remove(lost)
        while True:
            kept = [by_bytes[signed] for signed, _ in rows if signed in by_bytes]
            ((key, most), *_) = Counter(each.signer.fingerprint for each in kept).most_common(1)
            if most <= KEPT_OF_KEY and len(kept) <= KEPT_OF_SITE:
                return
            lowest = min((each for each in kept if each.signer.fingerprint == key), key=lambda each: each.rank)
            rows[:] = [row for row in rows if row[0] != lowest.signed]


def _standing(counting: Sequence[KnownStatement]) -> list[KnownStatement]:
    """Return the statements that no other replaces, in the same order; `counting` has the highest first."""
    return [each for at, each in enumerate(counting) if not any(higher.replaces(each) for higher in counting[:at])]


def next_serial(known: int | None, now: datetime) -> int:
    """Return the serial of a new statement: higher than every known one, and by the clock where none is known.

    Two people who do not hear of each other so make serials in the order in which they spoke.

    Args:
        known: the highest serial that was heard of; None for none.
        now: aware.

    Raises:
        UsageError: there is no higher one.
    """
    if known is not None and known >= _LAST_SERIAL:
        raise UsageError(
            "no statement can follow one with the highest serial there is",
            "find its key with `deploykit nodes` and revoke it with `deploykit keys revoke`",
        )
    return max(int(now.timestamp()), 0 if known is None else known + 1)


__all__ = [
    "KEPT_OF_KEY",
    "KEPT_OF_SITE",
    "KnownStatement",
    "LockBook",
    "LockDecision",
    "NotedStatement",
    "lock_problem",
    "next_serial",
]
