"""Passwords that were just made, until their page has shown them: in memory, for a minute, each for one login.

The form answers 303 to that page: whoever loads it again makes no new password.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from starlette.requests import Request

from deploykit.web.actions.shown import AccessGranted
from deploykit.web.requests import viewer_of

#: How many are kept, and for how many seconds.
_MOST: Final = 1000
_SECONDS: Final = 60.0


class ShownOnce:
    """New passwords by id, each for the login that asked for it. Use it from any thread.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, tuple[float, str, AccessGranted]] = OrderedDict()

    def keep(self, login: str, granted: AccessGranted) -> str:
        """Return the id under which a password is kept until it is taken."""
        id_ = secrets.token_urlsafe(16)
        with self._lock:
            self._drop_old()
            self._kept[id_] = (self._clock() + _SECONDS, login, granted)
            while len(self._kept) > _MOST:
                self._kept.popitem(last=False)
        return id_

    def take(self, login: str, id_: str) -> AccessGranted | None:
        """Return a password, and forget it; None where it was taken, is too old, or is another login's."""
        with self._lock:
            self._drop_old()
            _, whose, granted = self._kept.get(id_, (0.0, "", None))
            if granted is None or whose != login:
                return None
            del self._kept[id_]
        return granted

    def _drop_old(self) -> None:
        now = self._clock()
        while self._kept and next(iter(self._kept.values()))[0] <= now:
            self._kept.popitem(last=False)


#: Of this process.
SHOWN_ONCE: Final = ShownOnce()


def login_of(request: Request) -> str:
    """Return what tells the login of a request from others of the same viewer, as far as there are several."""
    identity = getattr(request.state, "identity", None)
    session = identity.session.key if identity is not None and identity.session is not None else ""
    return f"{viewer_of(request).name}\0{session}"


__all__ = ["SHOWN_ONCE", "ShownOnce", "login_of"]
