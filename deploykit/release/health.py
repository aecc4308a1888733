"""Check a site over HTTP: a GET until it answers with 2xx, or the time is over.

No redirect is followed: the address that is set has to answer itself. The body of the answer is not read.
"""

from __future__ import annotations

import http.client
import re
import time
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from deploykit.errors import ReleaseError
from deploykit.settings.site import is_web_address
from deploykit.system import hosts

_PAUSE: Final = 0.5
_ATTEMPT: Final = 5.0
_USER: Final = re.compile(r"(?<=://)[^/?#]*@")


def check_health(
    url: str,
    timeout: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """Return what the site answered, and at which attempt.

    Raises:
        ReleaseError: it did not answer with 2xx in time.
    """
    shown = _USER.sub("", url)
    if not is_web_address(url):
        raise ReleaseError(f"health_url {shown!a} is not an http or https address", "correct the site's settings")
    deadline = clock() + timeout
    attempts = 0
    while True:
        attempts += 1
        answer = _ask(url, min(_ATTEMPT, max(0.1, deadline - clock())))
        if answer.startswith("2"):
            return f"{shown} answered {answer} at attempt {attempts}"
        if clock() + _PAUSE >= deadline:
            raise ReleaseError(
                f"{shown} did not become healthy within {timeout:g} s: {answer}", "look at the site's own log"
            )
        sleep(_PAUSE)


def _ask(url: str, timeout: float) -> str:
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        connection = kind(parts.hostname or "", parts.port, timeout=timeout)
    except http.client.InvalidURL as error:
        return f"no answer ({error})"
    connection._create_connection = hosts.create_connection  # type: ignore[attr-defined]  # else each address has it all
    try:
        connection.request("GET", path, headers={"User-Agent": "deploykit"})
        answer = connection.getresponse()
    except (OSError, UnicodeError, http.client.HTTPException) as error:
        return f"no answer ({error})"
    else:
        return f"{answer.status} {answer.reason}"
    finally:
        connection.close()
