"""One statement on a site's lock: whether it counts, what it replaces, and whom its lock lets pass. Pure.

Rules:

* A lock counts with the grant `site.locked` for its site; an unlock with that grant, or with the right `lock.release`.
* A lock lasts at most 30 days. A longer one does not count.
* Exactly one key signs a statement: nobody becomes a holder by adding a signature to another's lock.
* The holder of a lock is its key, and whoever may sign as the principal by whose grant it counts.
* A statement replaces a lower one if its signer holds that one, or has `lock.release`.
* Whether a key was valid is judged by the instant at which its statement was first heard here.
* Whether it is revoked, trusted and granted is judged by the present moment.
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from typing import Final, TypeAlias

import attrs

from deploykit.errors import PolicyRefused
from deploykit.messages import SiteLocked, SiteUnlocked, one_line
from deploykit.messages.deploy import DeployPhase
from deploykit.messages.lock import MAX_LOCK
from deploykit.messages.statement import SignedStatement
from deploykit.names import SiteName
from deploykit.trust.check import Trust
from deploykit.trust.policy import Policy
from deploykit.trust.rights import RELEASE, covers, granted, type_names
from deploykit.trust.signature import Signers
from deploykit.trust.statements import frame_of, statement_of

Statement: TypeAlias = SiteLocked | SiteUnlocked
#: Order of the statements on a site; never equal for two that differ.
Rank: TypeAlias = tuple[int, str, bytes, str]

#: The names in grants of the right to lock.
LOCK: Final = type_names(SiteLocked)
#: Longest bodies, in bytes: a node shows a statement for each of its sites.
MAX_LOCK_BODY: Final = 2048
MAX_UNLOCK_BODY: Final = 8192
#: How far a lock's own time may lie ahead where its length is counted from that time.
_AHEAD: Final = timedelta(days=1)


@attrs.frozen(kw_only=True, slots=True)
class KnownStatement:
    """A statement that counted when it was last judged.

    Args:
        message: what it says.
        signed: its exact bytes.
        signer: who signed it.
        heard: when it was first heard here.
        holders: the principals by whose grants it counts.
        releases: its signer has the right `lock.release`.
    """

    message: Statement
    signed: SignedStatement = attrs.field(repr=False)
    signer: Signers
    heard: datetime
    holders: tuple[str, ...]
    releases: bool

    @property
    def site(self) -> SiteName:
        """The site."""
        return self.message.site

    @property
    def body(self) -> bytes:
        """The exact bytes of the message."""
        return frame_of(self.signed).body

    @property
    def rank(self) -> Rank:
        """Its place among the statements on the site: serial and id; then body and key, so that no two are equal."""
        digest = hashlib.sha256(self.signed.body.encode()).digest()
        return self.message.serial, self.message.id, digest, self.signer.fingerprint

    def is_holder(self, signer: Signers) -> bool:
        """Return whether a signer holds this statement: one of its keys signed it, or may sign as its principal."""
        keys = {each.fingerprint for each in self.signer.each}
        return any(each.fingerprint in keys for each in signer.each) or any(map(signer.is_principal, self.holders))

    def replaces(self, other: KnownStatement) -> bool:
        """Return whether this statement takes the place of another on the same site."""
        return self.rank > other.rank and (self.releases or other.is_holder(self.signer))

    def in_force(self, now: datetime, skew: timedelta) -> bool:
        """Return whether this is a lock that is neither over nor still to come, for clocks that differ by `skew`."""
        lock = self.message
        if not isinstance(lock, SiteLocked) or self.is_over(now, skew):
            return False
        return lock.since is None or lock.since - now <= skew

    def is_over(self, now: datetime, skew: timedelta) -> bool:
        """Return whether this is a lock that has ended by itself."""
        return isinstance(self.message, SiteLocked) and now - self.message.until > skew

    def lets_pass(self, phase: DeployPhase) -> bool:
        """Return whether commands of a phase are obeyed in spite of this lock."""
        lock = self.message
        return phase == "discard" or not isinstance(lock, SiteLocked) or (phase == "rollback" and lock.allow_rollback)

    def __str__(self) -> str:
        """Who, why, until when: one line that names no line of our files, for everybody reads refusals."""
        message = self.message
        name = one_line(message.holder, 100)
        who = f"{name} (key {self.signer.fingerprint})" if name else f"key {self.signer.fingerprint}"
        why = f": {one_line(message.reason)}" if message.reason else ""
        if isinstance(message, SiteUnlocked):
            return f"unlocked by {who}{why}"
        since = f" from {message.since:%Y-%m-%d %H:%M} UTC" if message.since is not None else ""
        return f"locked by {who}{since} until {message.until:%Y-%m-%d %H:%M} UTC{why}"


def judge(signed: SignedStatement, trust: Trust, now: datetime, *, heard: datetime | None = None) -> KnownStatement:
    """Return a statement, if it counts by the keys and grants of this moment.

    Args:
        signed: its exact bytes.
        trust: keys and grants.
        now: aware.
        heard: when it was first heard here, if it was.

    Raises:
        PolicyRefused: it does not count; the text may be shown to anybody.
        SignatureError: no trusted key signed it.
        MessageError: it is no message.
        KeyFileError: the trusted files cannot be read now. Try again later.
    """
    at = heard or now
    verified = trust.check(frame_of(signed), at)
    message, signer, policy = verified.message, verified.signer, trust.policy
    if not isinstance(message, SiteLocked | SiteUnlocked):
        raise PolicyRefused(f"a {type(message).__name__} is no statement on a lock")
    if len(signer.each) != 1:
        raise PolicyRefused("a statement on a lock has one signature", "sign it with one key")
    longest = MAX_LOCK_BODY if isinstance(message, SiteLocked) else MAX_UNLOCK_BODY
    if len(verified.frame.body) > longest:
        raise PolicyRefused(f"a {type(message).__name__} has at most {longest} bytes", "give a shorter reason")
    if isinstance(message, SiteLocked) and (problem := lock_problem(message, at)):
        raise PolicyRefused(problem, "lock for a shorter time")
    holders = _holders(policy, signer, message.site)
    releases = policy.may(RELEASE, signer, message.site)
    if not holders and not (releases and isinstance(message, SiteUnlocked)):
        what = "lock" if isinstance(message, SiteLocked) else "unlock"
        raise PolicyRefused(
            f"key {signer.fingerprint} may not {what} site {message.site}",
            "grant it site.locked in [[trust.grants]], if that is meant",
        )
    canonical = statement_of(verified.frame)
    return KnownStatement(
        message=message, signed=canonical, signer=signer, heard=at, holders=holders, releases=releases
    )


def lock_problem(lock: SiteLocked, now: datetime) -> str:
    """Return why a lock's times do not count, or an empty string.

    Args:
        lock: the statement.
        now: aware. It counts only for a lock whose own time lies more than a day ahead.
    """
    times = [each for each in (lock.since, lock.until, lock.time) if each is not None]
    if any(each.tzinfo is None for each in times):
        return "the lock has a time without a zone"
    begin = lock.since if lock.since is not None else min(lock.time, now + _AHEAD)
    if lock.until <= begin:
        return "the lock ends before it begins"
    if lock.until - begin > MAX_LOCK:
        return f"the lock would last longer than {MAX_LOCK.days} days"
    return ""


def _holders(policy: Policy, signer: Signers, site: SiteName) -> tuple[str, ...]:
    """Return the principals by whose grants a signer may lock a site."""
    grants = granted(policy.grants, LOCK, signer)
    return tuple(dict.fromkeys(grant.principal for grant in grants if covers(grant, site, policy.repos)))


__all__ = [
    "KnownStatement",
    "MAX_LOCK_BODY",
    "MAX_UNLOCK_BODY",
    "Statement",
    "judge",
    "lock_problem",
]
