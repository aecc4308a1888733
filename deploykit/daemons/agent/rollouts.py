"""A node's memory of rollouts: whose commands of each it obeyed, and who aborted it. Durable, bounded.

Rules:

* The starter of a rollout on this node is whose command of it was obeyed here first. Nobody becomes it by an abort or
  a discard.
* An abort counts for the commands of whoever signed it. With the grant `rollout.abort` it counts for everybody's.
* An abort counts as soon as it is noted here, also while the disk is full. When a call returns, it is on the disk.
* Rollouts are remembered for a month after the last that was heard of them. Of too many the oldest goes, of the key
  that has most: nobody can push out the rollouts of others.
"""

from __future__ import annotations

import json
import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import attrs

from deploykit.errors import RolloutMemoryError
from deploykit.names import SiteName
from deploykit.system.durable import replace_file
from deploykit.trust.allowed_signers import matches
from deploykit.trust.signature import Signers

_log = logging.getLogger(__name__)

_FORMAT: Final = 1
#: How long a rollout is remembered after the last that was heard of it, and how many at most.
_KEPT_FOR: Final = timedelta(days=30)
_MOST: Final = 2000
#: Seconds after which it is written again that something was heard.
_HEARD_EVERY: Final = 86400.0
#: Most principals, and most aborts, that are kept for one rollout.
_MOST_OF_ONE: Final = 16
#: Most mandates that are remembered of one rollout: it has one, unless its people approved it anew.
_MOST_MANDATES: Final = 4
_REMEDY: Final = (
    "no command of a rollout is obeyed until it can be written: free the disk, or correct its owner and mode"
)


def share_a_key(left: str, right: str) -> bool:
    """Return whether two messages have a signer in common, by the fingerprints of their keys.

    >>> share_a_key("SHA256:a,SHA256:b", "SHA256:b"), share_a_key("SHA256:a", "SHA256:ab")
    (True, False)
    """
    return not set(left.split(",")).isdisjoint(right.split(","))


@attrs.frozen(kw_only=True, slots=True)
class RolloutSender:
    """Who sent commands of a rollout that were obeyed here.

    Args:
        key: the fingerprint of the key that signed; of several, with commas between them.
        principal: the name in the grant that let the command pass.
    """

    key: str
    principal: str

    def is_signer(self, signer: Signers) -> bool:
        """Return whether a signer is the same: by one of the keys, or because it may sign as that principal."""
        return share_a_key(signer.fingerprint, self.key) or signer.is_principal(self.principal)


@attrs.frozen(kw_only=True, slots=True)
class NotedAbort:
    """One abort of a rollout.

    Args:
        key: the fingerprint of the key that signed it.
        principals: the pattern lists of its lines in `allowed_signers`, then.
        for_all: it was granted for the commands of everybody.
        by: a name for people, which the key vouches for; may be empty.
        reason: why, in words; may be empty.
    """

    key: str
    principals: tuple[tuple[str, ...], ...]
    for_all: bool
    by: str = ""
    reason: str = ""

    def counts_for(self, sender: RolloutSender) -> bool:
        """Return whether it stops the commands of a sender."""
        if self.for_all or share_a_key(self.key, sender.key):
            return True
        return any(matches(patterns, sender.principal) for patterns in self.principals)


@attrs.frozen(kw_only=True, slots=True)
class KnownRollout:
    """What is remembered of one rollout of one site.

    Args:
        senders: whose commands were obeyed here, the starter first.
        aborts: who aborted it.
        mandates: the digests of those under which commands were obeyed here, the newest last.
        heard: seconds since 1970 when something was last heard of it, to the day.
    """

    senders: tuple[RolloutSender, ...] = ()
    aborts: tuple[NotedAbort, ...] = ()
    mandates: tuple[str, ...] = ()
    heard: float = 0.0

    @property
    def starter(self) -> RolloutSender | None:
        """Whose command was obeyed first; None where none was."""
        return self.senders[0] if self.senders else None

    @property
    def owner(self) -> str:
        """The key on whose account it is remembered."""
        return self.senders[0].key if self.senders else self.aborts[0].key if self.aborts else ""

    def abort_for(self, sender: RolloutSender) -> NotedAbort | None:
        """Return the abort that stops the commands of a sender, if there is one."""
        return next((abort for abort in self.aborts if abort.counts_for(sender)), None)

    def with_sender(self, sender: RolloutSender, mandate: str = "") -> KnownRollout:
        """Add whose command is obeyed, and under which mandate, if under one."""
        senders, mandates = self.senders, self.mandates
        if sender not in senders and len(senders) < _MOST_OF_ONE:
            senders = (*senders, sender)
        if mandate and mandate not in mandates:
            mandates = (*mandates, mandate)[-_MOST_MANDATES:]
        return attrs.evolve(self, senders=senders, mandates=mandates)

    def with_abort(self, abort: NotedAbort) -> KnownRollout:
        """Add an abort; a later one of the same key never takes back that it was granted for all."""
        same = next((known for known in self.aborts if known.key == abort.key), None)
        if same is not None and (same.for_all or not abort.for_all):
            return self
        kept = [known for known in self.aborts if known is not same]
        # Those that count for all stand first; beyond the most, one that counts for its own key alone goes.
        ordered = sorted([*kept, abort], key=lambda each: not each.for_all)[:_MOST_OF_ONE]
        return attrs.evolve(self, aborts=tuple(ordered))


_Key = tuple[str, str]


class RolloutMemory:
    """The rollouts that one node knows. Use it from any thread of one process.

    Args:
        path: the file; made when first written to.
        most: rollouts that are remembered at most.
        keep: how long each is.

    Raises:
        RolloutMemoryError: the file cannot be read, is damaged, or of another version.
    """

    def __init__(self, path: Path, *, most: int = _MOST, keep: timedelta = _KEPT_FOR) -> None:
        self.path = path
        self._most = most
        self._keep = keep
        self._lock = threading.Lock()
        self._known = _load(path)
        self._unsaved = False

    def get(self, site: SiteName, rollout: str) -> KnownRollout:
        """Return what is known of a rollout; of an unknown one, nothing."""
        with self._lock:
            return self._known.get((site, rollout), KnownRollout())

    def obeyed(
        self, site: SiteName, rollout: str, sender: RolloutSender, now: datetime, *, mandate: str = ""
    ) -> NotedAbort | None:
        """Note whose command is about to be obeyed; return the abort that stops it instead, if there is one.

        Args:
            site, rollout: of the command.
            sender: who sent it.
            now: aware.
            mandate: the digest of the mandate that it lies inside; empty for none.

        Raises:
            RolloutMemoryError: it cannot be written. Do not act.
        """
        stopped: list[NotedAbort] = []

        def change(known: KnownRollout) -> KnownRollout:
            stopped.extend(filter(None, [known.abort_for(sender)]))
            return known if stopped else known.with_sender(sender, mandate)

        self._change((site, rollout), change, now)
        return stopped[0] if stopped else None

    def aborted(self, site: SiteName, rollout: str, abort: NotedAbort, now: datetime) -> bool:
        """Note an abort; return whether it is new.

        Raises:
            RolloutMemoryError: it counts from now on, but cannot be written: a restart would forget it. Try again.
        """
        return self._change((site, rollout), lambda known: known.with_abort(abort), now)

    def prune(self, now: datetime) -> int:
        """Forget rollouts of which nothing was heard for a month; return their number.

        Raises:
            RolloutMemoryError: it cannot be written.
        """
        limit = (now - self._keep).timestamp()
        with self._lock:
            old = [key for key, known in self._known.items() if known.heard < limit]
            for key in old:
                del self._known[key]
            if old:
                self._save()
        return len(old)

    # -- the file ------------------------------------------------------------------------------------------------------

    def _change(self, key: _Key, change: Callable[[KnownRollout], KnownRollout], now: datetime) -> bool:
        """Change what is known of one rollout, durably; return whether that was news."""
        with self._lock:
            known = self._known.get(key, KnownRollout())
            changed = change(known)
            news, seconds = changed != known, now.timestamp()
            if news or (known.heard and seconds - known.heard > _HEARD_EVERY):
                self._known[key] = attrs.evolve(changed, heard=seconds)
                self._unsaved = True
                self._bound()
            if self._unsaved:
                self._save()
        return news

    def _bound(self) -> None:
        while len(self._known) > self._most:
            (owner, _), *_ = Counter(known.owner for known in self._known.values()).most_common(1)
            theirs = [key for key, known in self._known.items() if known.owner == owner]
            oldest = min(theirs, key=lambda key: self._known[key].heard)
            _log.warning("forgot rollout %s of %s: more than %d are remembered", oldest[1], oldest[0], self._most)
            del self._known[oldest]

    def _save(self) -> None:
        self._unsaved = True
        rows = [{"site": site, "rollout": rollout, **attrs.asdict(k)} for (site, rollout), k in self._known.items()]
        raw = json.dumps({"format": _FORMAT, "rollouts": rows}, separators=(",", ":")).encode() + b"\n"
        try:
            replace_file(self.path, raw, mode=0o600)
        except OSError as error:
            raise RolloutMemoryError(f"cannot write {self.path}: {error.strerror}", _REMEDY) from error
        self._unsaved = False


def rollouts_of(state: Path) -> RolloutMemory:
    """Return the memory of the node whose state directory is given."""
    return RolloutMemory(state / "obeyed-rollouts.json")


def _load(path: Path) -> dict[_Key, KnownRollout]:
    try:
        data = json.loads(path.read_bytes())
        if data["format"] != _FORMAT:
            raise RolloutMemoryError(
                f"{path} has format {data['format']!r}, known is {_FORMAT}", "use the deploykit version that wrote it"
            )
        return {(str(row["site"]), str(row["rollout"])): _known(row) for row in data["rollouts"]}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise RolloutMemoryError(f"cannot read {path}: {error.strerror}", "correct its owner or mode") from error
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        remedy = "move it away: who started and who aborted rollouts is then forgotten"
        raise RolloutMemoryError(f"{path} is damaged: {error}", remedy) from error


def _known(row: Mapping[str, Any]) -> KnownRollout:
    aborts = (
        NotedAbort(**{**each, "principals": tuple(tuple(map(str, line)) for line in each["principals"])})
        for each in row["aborts"]
    )
    return KnownRollout(
        senders=tuple(RolloutSender(**each) for each in row["senders"]),
        aborts=tuple(aborts),
        mandates=tuple(map(str, row.get("mandates", ()))),
        heard=float(row["heard"]),
    )
