"""The trusted files as they are now, for a process that verifies many messages.

Rules:

* A message costs two calls of stat(2), some microseconds; nothing is read and nothing is parsed. So a key that is
  removed or revoked stops counting with the next message.
* After a change the files are parsed once, in the thread of the message that noticed; those of other threads wait for
  it. 50,000 keys take a third of a second.
* A file that changed a moment ago may change again under the same time stamp. Until its stamp is old enough it is read
  again a few times a second, and parsed only when its bytes differ.
* A file with mistakes is parsed once, too: strangers cannot have it parsed for each message of theirs.
"""

from __future__ import annotations

import hashlib
import threading
import time
from typing import Final, TypeAlias

import attrs

from deploykit.errors import KeyFileError
from deploykit.settings.trust import TrustSettings
from deploykit.trust.allowed_signers import AllowedSigners
from deploykit.trust.keyfiles import load_trusted, read_trusted

#: One state of the trusted files: times, device, inode, size, mode and owner of each.
_Seen: TypeAlias = tuple[tuple[int, ...], ...]
#: Nanoseconds within which a file may change twice under one time stamp.
_TICK: Final = 2_000_000_000
#: Seconds between two looks at the bytes of such a file.
_LOOK: Final = 0.25


@attrs.frozen(kw_only=True, slots=True)
class _Read:
    """What the files held.

    Args:
        seen: their state before they were read.
        result: the signers; or why there are none, found by parsing.
        digest: of their bytes; None when the time stamps are old enough to tell of every change.
        until: monotonic seconds; then the bytes are looked at again, if there is a digest.
    """

    seen: _Seen
    result: AllowedSigners | KeyFileError
    digest: bytes | None = None
    until: float = 0.0


class TrustReader:
    """Returns the allowed signers, read again whenever a file has changed. Call it for each message, from any thread."""

    def __init__(self, trust: TrustSettings) -> None:
        self._trust = trust
        self._paths = tuple(path for path in (trust.allowed_signers, trust.revoked_keys) if path is not None)
        self._lock = threading.Lock()
        self._read: _Read | None = None

    def __call__(self) -> AllowedSigners:
        """Return the allowed signers as they are now.

        Raises:
            KeyFileError: see `load_allowed_signers`. Believe no message then.
        """
        found = self._known(self._state())
        if found is None:
            with self._lock:
                # Again: another thread may have read them while this one waited.
                seen = self._state()
                found = self._known(seen) or self._load(seen)
        if isinstance(found, KeyFileError):  # a new one each time: an error collects the places that raised it
            raise KeyFileError(found.problem, found.remedy, problems=found.problems)
        return found

    def _known(self, seen: _Seen | None) -> AllowedSigners | KeyFileError | None:
        """Return what was read, if nothing can have changed since."""
        read = self._read
        if read is None or read.seen != seen or (read.digest is not None and time.monotonic() >= read.until):
            return None
        return read.result

    def _load(self, seen: _Seen | None) -> AllowedSigners | KeyFileError:
        # A state of now, not of before a wait for the lock or the disk: a file that is older than that tick is settled.
        settled = seen is not None and max((entry[1] for entry in seen), default=0) < time.time_ns() - _TICK
        # Before they are parsed: a change in between is found at the next look.
        digest = self._digest()
        before = self._read
        result: AllowedSigners | KeyFileError
        if before is not None and before.seen == seen and before.digest == digest:
            result = before.result
        else:
            try:
                result = load_trusted(self._trust)
            except KeyFileError as error:
                if not error.problems:  # unreadable now, which the next attempt may find mended
                    self._read = None
                    raise
                result = error.with_traceback(None)
        if seen is None:
            self._read = None
        else:
            self._read = _Read(
                seen=seen, result=result, digest=None if settled else digest, until=time.monotonic() + _LOOK
            )
        return result

    def _digest(self) -> bytes:
        whole = hashlib.sha256()
        for path in self._paths:
            whole.update(hashlib.sha256(read_trusted(path, "file of trusted keys")).digest())
        return whole.digest()

    def _state(self) -> _Seen | None:
        """Return the present state of the files; None where stat(2) fails for one."""
        found = []
        for path in self._paths:
            try:
                at = path.stat()
            except OSError:
                return None
            found.append((at.st_mtime_ns, at.st_ctime_ns, at.st_dev, at.st_ino, at.st_size, at.st_mode, at.st_uid))
        return tuple(found)


__all__ = ["TrustReader"]
