"""The trusted files as they are now, for a process that verifies many messages.

Rules:

* A message costs two calls of stat(2), some microseconds; nothing is read, nothing is parsed. So a key that is removed
  or revoked stops counting with the next message.
* After a change the files are parsed once, in the thread whose message noticed it; other threads wait for that. 50,000
  keys take a third of a second.
* A file that changed a moment ago may change again under the same time stamp. Until the stamp is old enough its bytes
  are read four times a second, and parsed only when they differ.
* Files with mistakes are parsed once in two seconds: strangers cannot have them parsed for each message of theirs.
"""

from __future__ import annotations

import hashlib
import math
import threading
import time
from typing import Final, TypeAlias

import attrs

from deploykit.errors import KeyFileError
from deploykit.settings.trust import TrustSettings
from deploykit.trust.allowed_signers import AllowedSigners
from deploykit.trust.keyfiles import TrustFiles, load_trusted, parse_trusted, read_trust_files

#: One state of the trusted files: times, device, inode, size, mode and owner of each.
_Seen: TypeAlias = tuple[tuple[int, ...], ...]
#: Nanoseconds within which a file may change twice under one time stamp.
_TICK: Final = 2_000_000_000
#: Seconds between two looks at the bytes of such a file.
_LOOK: Final = 0.25
#: Seconds until files with mistakes are parsed again, though they look the same.
_RETRY: Final = 2.0


@attrs.frozen(kw_only=True, slots=True)
class _Loaded:
    """What the files held.

    Args:
        seen: their state before they were read.
        result: the signers; or why there are none.
        digest: of the bytes that were parsed.
        until: monotonic seconds; then the bytes are looked at again.
    """

    seen: _Seen
    result: AllowedSigners | KeyFileError = attrs.field(repr=False)
    digest: bytes
    until: float


class TrustReader:
    """Returns the allowed signers, read again whenever a file has changed. Call it for each message.

    Use it from any thread.
    """

    def __init__(self, trust: TrustSettings) -> None:
        self._trust = trust
        self._paths = tuple(path for path in (trust.allowed_signers, trust.revoked_keys) if path is not None)
        self._lock = threading.Lock()
        self._loaded: _Loaded | None = None

    def __call__(self) -> AllowedSigners:
        """Return the allowed signers as they are now.

        Raises:
            KeyFileError: see `load_allowed_signers`. Believe no message then.
        """
        found = self._known(self._state())
        if found is None:
            with self._lock:
                seen = self._state()
                # Another thread may have loaded them while this one waited.
                found = self._known(seen) or self._load(seen)
        if isinstance(found, KeyFileError):  # a new one each time, for each raise adds its place to an error
            raise KeyFileError(found.problem, found.remedy, problems=found.problems)
        return found

    def _known(self, seen: _Seen | None) -> AllowedSigners | KeyFileError | None:
        """Return what was loaded, if nothing can have changed since."""
        loaded = self._loaded
        if loaded is None or loaded.seen != seen or time.monotonic() >= loaded.until:
            return None
        return loaded.result

    def _load(self, seen: _Seen | None) -> AllowedSigners | KeyFileError:
        path = self._trust.allowed_signers
        if seen is None or path is None:  # an error that is cheap to find again; or nothing to read
            return load_trusted(self._trust)
        settled = max((entry[1] for entry in seen), default=0) < time.time_ns() - _TICK
        # Read once: what is parsed is what the digest is of, also where a file is being rewritten in its place.
        files = read_trust_files(path, self._trust.revoked_keys)
        digest = _digest(files)
        before = self._loaded
        result: AllowedSigners | KeyFileError
        if before is not None and before.digest == digest and isinstance(before.result, AllowedSigners):
            result = before.result
        else:
            try:
                result = parse_trusted(self._trust, files)
            except KeyFileError as error:
                result = error.with_traceback(None)
        if isinstance(result, KeyFileError):
            until = time.monotonic() + _RETRY
        else:
            until = math.inf if settled else time.monotonic() + _LOOK
        self._loaded = _Loaded(seen=seen, result=result, digest=digest, until=until)
        return result

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


def _digest(files: TrustFiles) -> bytes:
    each = (hashlib.sha256(data).digest() for data in (files.signers, files.revoked))
    return hashlib.sha256(b"".join(each)).digest()


__all__ = ["TrustReader"]
