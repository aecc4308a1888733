"""What a broker gives as its reason: one line from an ERROR. Pure: a frame in, text out.

RabbitMQ names the kind of the error in the header `message` and says the rest in the body; ActiveMQ says it all in the
header and repeats it in the body, behind the name of a Java class and before a stack trace. So:

* the header and the body's first line are shown, and only one of them where it says all that the other does;
* it is one printable line, of bounded length, without a full stop at its end: texts are built around it;
* our passcodes are blotted out of both before anything else is done with them.
"""

from __future__ import annotations

import re
from typing import Final

from deploykit.bus.stomp.frames import Received

#: Most characters of a reason, and of each half of it.
LONGEST: Final = 300
_HALF: Final = 200
_READ: Final = 4096
_JAVA_CLASS: Final = re.compile(r"(?:[a-z]\w*\.)+[A-Z]\w*(?:Exception|Error): ?")
#: Ends of a sentence, of which the text around it has its own.
_ENDS: Final = ".:;, "


def reason_of(frame: Received, secrets: tuple[str, ...]) -> str:
    """Return why, by the broker's own words; "no reason given" where it has none.

    Args:
        frame: an ERROR.
        secrets: what must not be shown.
    """
    kind = _line(frame.headers.get("message", ""), secrets)
    detail = _line(_first_line(frame.body), secrets)
    detail = detail[match.end() :] if (match := _JAVA_CLASS.match(detail)) else detail
    if _plain(detail) in _plain(kind):
        shown = kind
    elif _plain(kind) in _plain(detail):
        shown = detail
    else:
        shown = f"{kind}: {detail}"
    return shown[:LONGEST].rstrip(_ENDS) or "no reason given"


def without(text: str, secrets: tuple[str, ...], *, least: int = 1) -> str:
    """Return the text without secrets, plain or as CONNECT may have escaped them.

    Args:
        least: shorter secrets stay: blotting out part of an ordinary word would show more than it hides.
    """
    for secret in secrets:
        if len(secret) >= max(least, 1):
            text = text.replace(secret, "***").replace(secret.replace("\\", "\\\\"), "***")
    return text


def clean(text: str, limit: int) -> str:
    """Return one printable line of at most `limit` characters."""
    return "".join(c if c.isprintable() else " " for c in text[:limit]).strip()


def _first_line(body: bytes) -> str:
    """Return the first line of a body that is not empty; nothing where it only announces what follows."""
    text = body[:_READ].decode("utf-8", "replace").lstrip().partition("\n")[0].strip()
    return "" if text.endswith(":") else text


def _line(text: str, secrets: tuple[str, ...]) -> str:
    return clean(without(text, secrets), _HALF).rstrip(_ENDS)


def _plain(text: str) -> str:
    """Return what counts where two texts are compared."""
    return text.casefold().replace("_", " ")
