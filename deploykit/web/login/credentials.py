"""What a request shows of who sends it: the session's cookie, `Authorization: Basic`. Pure.

Two cookies of one name, or two such headers, count as none: somebody has added one.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Final

from starlette.datastructures import Headers

from deploykit.system.passwordfile import MOST_PASSWORD

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
    wanted = cookie_name(secure=secure)
    found = {
        value.strip()
        for line in headers.getlist("cookie")
        for name, _, value in (part.partition("=") for part in line.split(";"))
        if name.strip() == wanted
    }
    return found.pop() if len(found) == 1 else ""


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


__all__ = ["basic_login", "cookie_name", "session_id", "set_cookie"]
