"""What a request shows of who sends it: the session's cookie, `Authorization: Basic`. Pure.

Two cookies of one name, or two such headers, count as none: somebody has added one.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from typing import Final

from starlette.datastructures import Headers

from deploykit.system.passwordfile import MOST_PASSWORD

_RANDOM: Final = re.compile(r"[A-Za-z0-9_-]{43}\Z")
#: Bytes of the longest `Authorization` that is decoded.
_MOST_BASIC: Final = 4096


def cookie_name(*, secure: bool) -> str:
    """Return the name of the session's cookie. `__Host-` binds it to this host, but needs https."""
    return "__Host-deploykit" if secure else "deploykit"


def set_cookie(id_: str, *, secure: bool) -> str:
    """Return the header `Set-Cookie` that hands a session to the browser; an empty id takes it away."""
    gone = "" if id_ else "; Max-Age=0"
    return f"{cookie_name(secure=secure)}={id_}; Path=/; HttpOnly; SameSite=Strict{'; Secure' if secure else ''}{gone}"


def session_id(headers: Headers, *, secure: bool) -> str:
    """Return the id in the session's cookie; empty where there is none, or more than one."""
    return cookie_value(headers, cookie_name(secure=secure))


def lax_cookie(name: str, value: str, *, secure: bool, seconds: int) -> str:
    """Return the header `Set-Cookie` of a step of a login that comes back from another site; empty takes it away."""
    life = seconds if value else 0
    return f"{name}={value}; Path=/; HttpOnly; SameSite=Lax{'; Secure' if secure else ''}; Max-Age={life}"


def is_random_id(text: str) -> bool:
    """Return whether a text can be 256 random bits that we have put into a cookie."""
    return _RANDOM.match(text) is not None


def cookie_value(headers: Headers, wanted: str) -> str:
    """Return the value of a cookie; empty where there is none, or more than one."""
    found = {
        value.strip()
        for line in headers.getlist("cookie")
        for name, _, value in (part.partition("=") for part in line.split(";"))
        if name.strip() == wanted
    }
    return found.pop() if len(found) == 1 else ""


def bearer_token(values: Sequence[str]) -> str | None:
    """Return the token of `Authorization: Bearer`; None where it is another scheme, or there are several headers."""
    if len(values) != 1 or len(values[0]) > _MOST_BASIC:
        return None
    scheme, _, token = values[0].partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def basic_login(values: Sequence[str]) -> tuple[str, str] | None:
    """Return name and password of the header `Authorization`; None where it has none that can be read."""
    if len(values) != 1 or len(values[0]) > _MOST_BASIC:
        return None
    scheme, _, encoded = values[0].partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, colon, password = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return (name, password) if colon and len(password) <= MOST_PASSWORD else None


__all__ = [
    "basic_login",
    "bearer_token",
    "cookie_name",
    "cookie_value",
    "is_random_id",
    "lax_cookie",
    "session_id",
    "set_cookie",
]
