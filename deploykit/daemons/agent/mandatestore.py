"""The mandates that a node keeps: signed `RolloutApproved`, each under its digest. Durable, bounded.

One file for each: a line of JSON with the signatures and what the index needs, and then the very body.

Rules:

* A mandate that is lost is asked for again. So a damaged file is removed, and a full disk stops no command.
* Signatures of one body are collected: a copy with fewer never replaces what is known.
* Of too many, those go that have ended, the oldest end first; then, of the key that signed most, the oldest. One that
  several people signed is of whoever of them signed least: nobody makes another's their own by adding a signature.
* One that commands were obeyed under here, and that has not ended, never makes room.
* What does not count yet is held in memory, a few: it tells why a command under it is refused.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import attrs

from deploykit.daemons.service.throttle import LogThrottle
from deploykit.errors import MessageError, SignatureError
from deploykit.messages import RolloutApproved
from deploykit.system.durable import replace_file
from deploykit.trust.sshsig import decode_header
from deploykit.wire import CONTENT_TYPE, decode

_log = logging.getLogger(__name__)

_FORMAT: Final = 1
_SUFFIX: Final = ".mandate"
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
#: Most mandates on the disk, most bytes of them, and most in memory alone.
_MOST: Final = 500
_MOST_BYTES: Final = 64 * 1024 * 1024
_MOST_HELD: Final = 8
#: How long one is kept after its end: a command that comes too late is told so.
_KEPT_FOR: Final = timedelta(days=1)
#: Most decoded mandates that are kept: each may name 10,000 nodes.
_DECODED: Final = 4
#: Longest first line of a file: each signature in it may have a long certificate.
_HEAD: Final = 1 << 18
#: What reading the first line of a damaged file raises.
_DAMAGED: Final = (
    *(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError, SignatureError),
)


@attrs.frozen(kw_only=True, slots=True)
class KeptMandate:
    """One mandate of the store.

    Args:
        digest: hex SHA-256 of the body.
        site, rollout: what it is for.
        ends: its `not_after`, in seconds since 1970.
        arrived: when it came first.
        size: of the body, in bytes.
        signatures: by the fingerprint of each key, as in the header.
        counting: the keys whose signatures counted when it was kept.
        body: where it is in memory alone; else None.
    """

    digest: str
    site: str
    rollout: str
    ends: float
    arrived: float
    size: int
    signatures: Mapping[str, str]
    counting: tuple[str, ...] = ()
    body: bytes | None = attrs.field(default=None, repr=False)

    @classmethod
    def of(
        cls,
        approved: RolloutApproved,
        body: bytes,
        signatures: Mapping[str, str],
        now: datetime,
        *,
        counting: Iterable[str] = (),
    ) -> KeptMandate:
        """Return what to keep of a verified mandate."""
        return cls(
            digest=digest_of(body),
            site=approved.site,
            rollout=approved.rollout,
            ends=approved.not_after.timestamp(),
            arrived=now.timestamp(),
            size=len(body),
            signatures=signatures,
            counting=tuple(counting),
            body=body,
        )


@attrs.frozen(kw_only=True, slots=True)
class StoredMandate:
    """A mandate of the store: what the index holds, and what the file does."""

    kept: KeptMandate
    message: RolloutApproved
    body: bytes = attrs.field(repr=False)


def digest_of(body: bytes) -> str:
    """Return the name of a mandate: hex SHA-256 of its body."""
    return hashlib.sha256(body).hexdigest()


def is_digest(text: str) -> bool:
    """Return whether a text can be the name of a mandate."""
    return _DIGEST.fullmatch(text) is not None


def to_remove(
    kept: Collection[KeptMandate],
    new: KeptMandate,
    now: float,
    needed: Callable[[KeptMandate], bool],
    *,
    most: int = _MOST,
    most_bytes: int = _MOST_BYTES,
) -> tuple[KeptMandate, ...] | None:
    """Return which mandates make room for a new one; None where no room can be made. Pure.

    Args:
        kept: on the disk.
        new: not among them.
        now: seconds since 1970.
        needed: commands were obeyed under it here.
        most, most_bytes: what the disk may hold, with the new one.
    """
    left = list(kept)
    removed: list[KeptMandate] = []
    while len(left) >= most or sum(each.size for each in left) + new.size > most_bytes:
        ended = [each for each in left if each.ends < now]
        free = [each for each in left if each.ends >= now and not needed(each)]
        if ended:
            victim = min(ended, key=lambda each: each.ends)
        elif free:
            victim = _least_missed(free, [*left, new])
        else:
            return None
        left.remove(victim)
        removed.append(victim)
    return tuple(removed)


def _least_missed(free: Collection[KeptMandate], among: Collection[KeptMandate]) -> KeptMandate:
    """Return one that does not count; else the oldest of those that nobody signed but who signed most."""
    share = Counter(key for each in among for key in each.counting or each.signatures)

    def rank(mandate: KeptMandate) -> tuple[bool, int, float]:
        keys = mandate.counting or mandate.signatures
        return bool(mandate.counting), -min((share[key] for key in keys), default=0), mandate.arrived

    return min(free, key=rank)


class MandateStore:
    """The mandates that one node knows. Use it from any thread of one process.

    Args:
        path: the directory; made when first written to.
        needed: returns whether commands were obeyed under a mandate here.
        most, most_bytes: what the disk may hold.
    """

    def __init__(
        self,
        path: Path,
        needed: Callable[[KeptMandate], bool],
        *,
        most: int = _MOST,
        most_bytes: int = _MOST_BYTES,
    ) -> None:
        self.path = path
        self._needed = needed
        self._most = most
        self._most_bytes = most_bytes
        self._changed = threading.Condition()
        self._failed = LogThrottle()
        self._decoded: dict[str, RolloutApproved] = {}
        self._held: dict[str, KeptMandate] = {}
        self._kept = dict(self._load())

    def __len__(self) -> int:
        """How many are on the disk."""
        return len(self._kept)

    def __contains__(self, digest: str) -> bool:
        """Whether a mandate is known, as far as the index says."""
        return digest in self._kept or digest in self._held

    def find(self, digest: str, *, wait: float = 0.0) -> StoredMandate | None:
        """Return a mandate; None where it is not here, nor comes within `wait` seconds."""
        with self._changed:
            if wait > 0:
                self._changed.wait_for(lambda: digest in self._kept or digest in self._held, wait)
            known = self._kept.get(digest) or self._held.get(digest)
            if known is None:
                return None
            body = known.body if known.body is not None else self._read(known)
            if body is None:
                return None
            try:
                return StoredMandate(kept=known, message=self._message(digest, body), body=body)
            except MessageError as error:
                self._forget(known, f"no mandate: {error}")
                return None

    def signatures(self, digest: str) -> Mapping[str, str]:
        """Return the signatures of a body that are known, by the fingerprint of each key."""
        with self._changed:
            known = self._kept.get(digest) or self._held.get(digest)
            return known.signatures if known is not None else {}

    def knows(self, digest: str, signatures: Iterable[str]) -> bool:
        """Return whether a body is known with all of these signatures, as in the header."""
        with self._changed:
            known = self._kept.get(digest) or self._held.get(digest)
            return known is not None and set(signatures) <= set(known.signatures.values())

    def keep(self, mandate: KeptMandate, now: datetime) -> bool:
        """Keep a mandate that counts, durably where that is possible; return whether that is news.

        Its signatures replace those of the same body: the caller has collected what counts.
        """
        with self._changed:
            before = self._kept.get(mandate.digest)
            if before is not None and before.signatures == mandate.signatures:
                return False
            known = before or self._held.get(mandate.digest)
            if known is not None:
                mandate = attrs.evolve(mandate, arrived=known.arrived)
            if self._make_room(mandate, now) and self._write(mandate):
                self._kept[mandate.digest] = attrs.evolve(mandate, body=None)
                self._held.pop(mandate.digest, None)
            else:
                self._kept.pop(mandate.digest, None)
                self._hold(mandate)
            self._changed.notify_all()
            return True

    def hold(self, mandate: KeptMandate) -> bool:
        """Hold a mandate that does not count in memory, for a while; return whether that is news."""
        with self._changed:
            if mandate.digest in self._kept or self._held.get(mandate.digest) == mandate:
                return False
            self._hold(mandate)
            self._changed.notify_all()
            return True

    def prune(self, now: datetime) -> int:
        """Forget what ended a day ago; return how many."""
        limit = (now - _KEPT_FOR).timestamp()
        with self._changed:
            old = [each for each in (*self._kept.values(), *self._held.values()) if each.ends < limit]
            for each in old:
                self._forget(each)
        return len(old)

    # -- under the lock ------------------------------------------------------------------------------------------------

    def _hold(self, mandate: KeptMandate) -> None:
        self._held.pop(mandate.digest, None)
        self._held[mandate.digest] = mandate
        while len(self._held) > _MOST_HELD:
            others = [each for each in self._held.values() if each is not mandate]
            del self._held[_least_missed(others, self._held.values()).digest]

    def _make_room(self, new: KeptMandate, now: datetime) -> bool:
        others = [each for each in self._kept.values() if each.digest != new.digest]
        removed = to_remove(
            *(others, new, now.timestamp(), self._needed),
            most=self._most,
            most_bytes=self._most_bytes,
        )
        if removed is None:
            self._report(f"more than {len(others)} mandates are in use")
            return False
        for each in removed:
            self._forget(each, "to make room")
        return True

    def _message(self, digest: str, body: bytes) -> RolloutApproved:
        if (known := self._decoded.get(digest)) is not None:
            return known
        message = decode({"content-type": CONTENT_TYPE}, body)
        if not isinstance(message, RolloutApproved):
            raise MessageError(f"a {type(message).__name__}")
        self._decoded[digest] = message
        while len(self._decoded) > _DECODED:
            del self._decoded[next(iter(self._decoded))]
        return message

    def _forget(self, mandate: KeptMandate, why: str = "") -> None:
        if why:
            _log.warning("removed the mandate of rollout %s of %s: %s", mandate.rollout, mandate.site, why)
        self._held.pop(mandate.digest, None)
        self._decoded.pop(mandate.digest, None)
        if self._kept.pop(mandate.digest, None) is not None:
            self._unlink(self._file(mandate.digest))

    # -- the files -----------------------------------------------------------------------------------------------------

    def _file(self, digest: str) -> Path:
        return self.path / f"{digest}{_SUFFIX}"

    def _write(self, mandate: KeptMandate) -> bool:
        head = {"format": _FORMAT, **attrs.asdict(mandate, filter=lambda field, _: field.name != "body")}
        raw = json.dumps(head, separators=(",", ":")).encode() + b"\n" + (mandate.body or b"")
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(self._file(mandate.digest), raw, mode=0o600)
        except OSError as error:
            self._report(f"cannot write {self.path}: {error.strerror}")
            return False
        return True

    def _report(self, why: str) -> None:
        if count := self._failed.add(why, time.monotonic()):
            _log.error("%d mandates are kept in memory alone, and are asked for after a restart: %s", count, why)

    def _read(self, mandate: KeptMandate) -> bytes | None:
        try:
            body = self._file(mandate.digest).read_bytes().partition(b"\n")[2]
        except OSError as error:
            self._forget(mandate, f"it cannot be read: {error.strerror}")
            return None
        if digest_of(body) != mandate.digest:
            self._forget(mandate, "its file is damaged")
            return None
        return body

    def _load(self) -> Iterable[tuple[str, KeptMandate]]:
        try:
            found = sorted(self.path.iterdir())
        except FileNotFoundError:
            return
        except OSError as error:
            _log.error("cannot read %s, mandates are asked for again: %s", self.path, error.strerror)
            return
        for file in found:
            try:
                mandate = _parse_head(file)
            except _DAMAGED as error:
                _log.warning("removed %s, which is no mandate: %s", file.name, error)
                self._unlink(file)
            else:
                yield mandate.digest, mandate

    def _unlink(self, file: Path) -> None:
        try:
            file.unlink(missing_ok=True)
        except OSError as error:
            _log.warning("cannot remove %s: %s", file, error.strerror)


def _parse_head(file: Path) -> KeptMandate:
    """Return what the index holds of a file; its body is looked at when it is used."""
    with file.open("rb") as opened:
        data: dict[str, Any] = json.loads(opened.readline(_HEAD))
    if data.pop("format") != _FORMAT:
        raise ValueError("another format")
    if not is_digest(data["digest"]) or file.name != data["digest"] + _SUFFIX:
        raise ValueError("another digest")
    times = float(data["ends"]), float(data["arrived"])
    signatures = {str(key): str(text) for key, text in data["signatures"].items()}
    for text in signatures.values():
        decode_header(text)
    if not all(map(math.isfinite, times)):  # it would never end
        raise ValueError("a time is no number")
    return KeptMandate(
        digest=data["digest"],
        site=str(data["site"]),
        rollout=str(data["rollout"]),
        ends=times[0],
        arrived=times[1],
        size=int(data["size"]),
        signatures=signatures,
        counting=tuple(map(str, data["counting"])),
    )
