"""The body of a form, and where to go after the login. Reading is capped in bytes and time; the rest is pure."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from starlette.datastructures import Headers
from starlette.types import Message, Receive

from deploykit.web.login.refusals import AccessRefusal

#: Bytes of the longest form, of the longest body of the API (a list of 10,000 nodes), and seconds in which it must be
#: here. Nobody's body is read before it is known whose it is.
MOST_BODY: Final = 64 << 10
MOST_API_BODY: Final = 1 << 20
BODY_SECONDS: Final = 10.0
_MOST_FIELDS: Final = 50
_MOST_NEXT: Final = 2000
_FORM: Final = "application/x-www-form-urlencoded"


def length_problem(headers: Headers, most: int = MOST_BODY) -> AccessRefusal | None:
    """Return why a body is refused before it is read."""
    if headers.getlist("content-encoding"):
        return AccessRefusal(status=415, detail="Send the body as it is, without a content encoding.")
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()) or len(length) > 18 or int(length) > most:
        return _too_large(most)
    return None


async def read_body(receive: Receive, *, seconds: float = BODY_SECONDS, most: int = MOST_BODY) -> bytes | AccessRefusal:
    """Return the whole body, or why it is refused."""
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    return AccessRefusal(status=400, detail="The request ended early.")
                body += message.get("body", b"")
                if len(body) > most:
                    return _too_large(most)
                if not message.get("more_body"):
                    return bytes(body)
    except TimeoutError:
        return AccessRefusal(status=408, detail=f"The body did not come in {seconds:g} s.")


def replayed(body: bytes, receive: Receive) -> Receive:
    """Return what hands a body that was read to the application, then whatever comes after it."""
    waiting = [body]

    async def receive_again() -> Message:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        return await receive()

    return receive_again


def form_fields(headers: Headers, body: bytes) -> Mapping[str, str]:
    """Return the fields of a form; none where the body is none. A field that stands twice is left out."""
    if headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
        return {}
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_MOST_FIELDS, errors="strict")
    except ValueError:
        return {}
    names = [name for name, _ in pairs]
    return {name: value for name, value in pairs if names.count(name) == 1}


def safe_next(path: str, *, login: str = "/login") -> str:
    """Return a path of ours to go to after the login: the one that was asked for, or `/`.

    >>> safe_next("/sites/shop?x=1")
    '/sites/shop?x=1'
    >>> safe_next("//evil.example/")
    '/'
    """
    if len(path) > _MOST_NEXT or not path.startswith("/") or path[1:2] in ("/", "\\"):
        return "/"
    # Browsers drop tabs and line ends from an address, and take a backslash for a slash.
    if "\\" in path or not path.isascii() or not path.isprintable() or " " in path:
        return "/"
    try:
        parts = urlsplit(path)
    except ValueError:
        return "/"
    steps = parts.path in (login, "/logout") or parts.path.startswith((f"{login}/", "/invite/"))
    return "/" if steps or parts.scheme or parts.netloc else path


def _too_large(most: int) -> AccessRefusal:
    return AccessRefusal(status=413, detail=f"The body is larger than {most} bytes.")


__all__ = [
    "BODY_SECONDS",
    "MOST_API_BODY",
    "MOST_BODY",
    "form_fields",
    "length_problem",
    "read_body",
    "replayed",
    "safe_next",
]
