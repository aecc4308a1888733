"""A request straight into an ASGI application, byte for byte as a server would hand it over: no client in between."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any, cast
from urllib.parse import unquote

import attrs
from starlette.types import ASGIApp, Message

_Headers = Mapping[str, str] | Iterable[tuple[str, str]]


@attrs.frozen(kw_only=True)
class Asked:
    """What an application answered. Names of headers are lower-case; `cookies` are the lines `Set-Cookie`."""

    status: int
    headers: Mapping[str, str]
    cookies: tuple[str, ...]
    body: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@attrs.frozen(kw_only=True)
class Asker:
    """Asks one application, always from one peer and with one `Host`.

    Args:
        client: address and port of the peer; None: a UNIX socket.
        host: the header `Host`; None: there is none.
    """

    app: ASGIApp
    host: str | None = "localhost:8470"
    client: tuple[str, int] | None = ("127.0.0.1", 40000)
    headers: Mapping[str, str] = attrs.field(factory=dict)

    def get(self, path: str, headers: _Headers = ()) -> Asked:
        """Return the answer to a GET."""
        return self.ask("GET", path, headers)

    def post(self, path: str, body: bytes = b"", headers: _Headers = ()) -> Asked:
        """Return the answer to a POST of a form."""
        named = {"content-type": "application/x-www-form-urlencoded", "content-length": str(len(body))}
        return self.ask("POST", path, [*named.items(), *_pairs(headers)], [body])

    def ask(self, method: str, path: str, headers: _Headers = (), body: Iterable[bytes] = ()) -> Asked:
        """Return the answer to any request, whose body comes in pieces. `Host` among the headers replaces ours."""
        return asyncio.run(self.ask_soon(method, path, headers, body))

    async def ask_soon(self, method: str, path: str, headers: _Headers = (), body: Iterable[bytes] = ()) -> Asked:
        """Return the answer to any request, for tests that have several at a time."""
        pieces = list(body) or [b""]
        pairs = [(name.lower(), value) for name, value in [*self.headers.items(), *_pairs(headers)]]
        if self.host is not None and not any(name == "host" for name, _ in pairs):
            pairs.insert(0, ("host", self.host))
        raw_path, _, query = path.partition("?")
        scope: MutableMapping[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote(raw_path),
            "raw_path": raw_path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs],
            "client": self.client,
            "server": ("127.0.0.1", 8470),
            "state": {},
        }
        waiting, sent, answered = list(pieces), list[Message](), asyncio.Event()

        async def receive() -> Message:
            if waiting:
                return {"type": "http.request", "body": waiting.pop(0), "more_body": bool(waiting)}
            await answered.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            sent.append(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                answered.set()

        await self.app(scope, receive, send)
        (start,) = (message for message in sent if message["type"] == "http.response.start")
        found = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in start["headers"]]
        return Asked(
            status=start["status"],
            headers=dict(found),
            cookies=tuple(value for name, value in found if name == "set-cookie"),
            body=b"".join(cast(bytes, m.get("body", b"")) for m in sent if m["type"] == "http.response.body"),
        )


def _pairs(headers: _Headers) -> list[tuple[str, str]]:
    return list(headers.items()) if isinstance(headers, Mapping) else list(headers)
