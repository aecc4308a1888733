"""Download objects of Git LFS: ask the server for a batch, then fetch each object into the store.

Rules:

* What one object lacks is its own problem; what the server refuses as a whole ends the work, with one reason for all
  that is left. Both are lines for people, and nothing is asked for twice in one fetch.
* No redirect is followed: an address is in the settings, or in an answer that was checked.
* A server that did not answer twice in a row is not asked for a third object. One that is slow for a single object
  costs the others nothing.
* A reason is the same in each fetch: what lasts is reported once.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from functools import lru_cache
from http import HTTPStatus
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from deploykit.errors import DeadlineExceeded, MirrorError
from deploykit.git.lfspointer import LfsPointer
from deploykit.git.transport.login import login_for
from deploykit.git.transport.remote import run_credential_helper
from deploykit.httpclient.exchange import HttpServer, exchange
from deploykit.httpclient.reply import HttpReply, HttpRequest, NoReply
from deploykit.mirror.lfs import batch
from deploykit.mirror.lfs.endpoint import LfsEndpoint, place_of
from deploykit.mirror.lfs.store import LfsStore
from deploykit.settings.mirror import MirrorSettings
from deploykit.system.deadline import Deadline

#: What a status of the whole batch means, and what to do about it.
_BATCH: Final = {
    401: "wants a login, or refuses ours (check credentials_file or credential_helper)",
    403: "forbids it (check credentials_file or credential_helper, and that the login may read)",
    404: "has no LFS server there (set lfs_url)",
    406: "does not speak the batch API (set lfs_url)",
    413: "takes no question of that size (look at the server, or at its proxy)",
    422: "takes the question for no valid one (look at the server)",
    429: "wants fewer questions: the next fetch asks again",
    501: "has LFS switched off (switch it on there)",
    507: "has no space left (make room there)",
    509: "has used up its bandwidth (look at its quota)",
}
#: Statuses of the whole batch where a server means that it has none of the objects.
_NONE_OF_THEM: Final = frozenset({404, 410, 422})
_GONE: Final = frozenset({404, 410})
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
#: Objects in a row for which a server may stay silent.
_TRIES: Final = 2


class LfsClient:
    """One fetch of objects.

    Args:
        endpoint: the server.
        settings: of the mirror.
        store: takes the objects. The caller holds the mirror's lock.
        limit: ends all of it.
        room: raises where the disk has less room than so many bytes and the settings' reserve.
        tick: is called with the bytes received so far; it may raise.
    """

    def __init__(
        self,
        endpoint: LfsEndpoint,
        settings: MirrorSettings,
        store: LfsStore,
        limit: Deadline,
        *,
        room: Callable[[int], None],
        tick: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._endpoint = endpoint
        self._settings = settings
        self._store = store
        self._limit = limit
        self._room = room
        self._tick = tick
        self._silent: dict[tuple[str, str, int], list[str]] = {}
        self._server = lru_cache(maxsize=8)(self._server_at)
        self._login = ""
        self.received = 0
        self.objects = 0

    def download(self, pointers: Sequence[LfsPointer]) -> dict[LfsPointer, str]:
        """Fetch objects into the store; return why for each that is not there after that.

        Raises:
            SettingsError: `ca_file` or `credentials_file` cannot be used.
            OriginError: the credential helper fails.
            OSError: the disk fails.
        """
        self._login = login_for(self._endpoint.login, self._settings, run_credential_helper, self._limit.left())
        missing: dict[LfsPointer, str] = {}
        left = dict.fromkeys(pointers)
        try:
            for asked in batch.batches(pointers):
                for pointer, way in self._ask(asked).items():
                    problem = way if isinstance(way, str) else self._fetch(pointer, way)
                    if problem:
                        missing[pointer] = problem
                    del left[pointer]
        except DeadlineExceeded as error:
            missing |= dict.fromkeys(left, f"{error.problem}: the next fetch goes on (or raise lfs_deadline)")
        except MirrorError as error:  # of the whole
            remedy = f" ({error.remedy})" if error.remedy else ""
            missing |= dict.fromkeys(left, f"{error.problem}{remedy}")
        return missing

    def _ask(self, asked: Sequence[LfsPointer]) -> batch.Answer:
        url = f"{self._endpoint.url}/objects/batch"
        headers = (("Accept", batch.MEDIA_TYPE), ("Content-Type", batch.MEDIA_TYPE), *self._authorization())
        request = HttpRequest(method="POST", target=urlsplit(url).path, headers=headers, body=batch.question(asked))
        reply = self._exchange(url, request, kept=batch.MOST_ANSWER)
        if isinstance(reply, NoReply):
            raise MirrorError(reply.why, reply.remedy)
        if reply.status != HTTPStatus.OK:
            raise MirrorError(f"{self._server(place_of(url)).shown} {self._why(reply)}")
        if not reply.whole:
            raise MirrorError("the LFS server's answer is too long, or broke off", "look at the server")
        return batch.read_answer(reply.body, asked, allow_http=self._settings.allow_http)

    def _fetch(self, pointer: LfsPointer, way: batch.Download) -> str:
        """Fetch one object; return why that failed, or an empty text."""
        place = place_of(way.url)
        silent = self._silent.setdefault(place, [])
        if len(silent) == _TRIES:
            return silent[-1]
        self._room(pointer.size)
        parts = urlsplit(way.url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        headers = way.headers
        own = any(name.lower() == "authorization" for name, _ in headers)
        if not own and not way.authenticated and self._endpoint.is_of(way.url):
            headers = (*headers, *self._authorization())
        with self._store.receive(pointer) as incoming:

            def take(piece: bytes) -> None:
                self._limit.left()
                incoming.feed(piece)
                self.received += len(piece)
                self._tick(self.received)

            try:
                reply = self._exchange(way.url, HttpRequest(method="GET", target=target, headers=headers), sink=take)
                if isinstance(reply, NoReply):
                    silent.append(f"{reply.why} ({reply.remedy})")
                    return silent[-1]
                silent.clear()
                if reply.status != HTTPStatus.OK:
                    return f"its download from {self._server(place).shown} {_why_no_object(reply.status)}"
                if not reply.whole:
                    return f"its download from {self._server(place).shown} broke off"
                incoming.finish()
            except DeadlineExceeded:
                raise
            except MirrorError as error:
                return error.problem
        self.objects += 1
        return ""

    def _exchange(
        self, url: str, request: HttpRequest, *, kept: int = 0, sink: Callable[[bytes], object] | None = None
    ) -> HttpReply | NoReply:
        reply = exchange(
            self._server(place_of(url)),
            request,
            seconds=self._limit.left(),
            kept=kept,
            sink=sink,
            stall=self._settings.stall_timeout,
        )
        self._limit.left()
        return reply

    def _server_at(self, place: tuple[str, str, int]) -> HttpServer:
        scheme, host, port = place
        name = f"[{host}]" if ":" in host else host
        ca_file: Path | None = self._settings.ca_file
        return HttpServer.of(
            f"{scheme}://{name}:{port}", ca_file=ca_file, connect_timeout=self._settings.connect_timeout
        )

    def _authorization(self) -> tuple[tuple[str, str], ...]:
        return (("Authorization", self._login),) if self._login else ()

    def _why(self, reply: HttpReply) -> str:
        if reply.status in _REDIRECTS:
            return "redirects, which is not followed (set lfs_url to where it leads)"
        text = self._without_login(batch.reason_of(reply.body))
        hint = _BATCH.get(reply.status, "refuses (look at the server)")
        if text and reply.status in _NONE_OF_THEM:
            hint = "has none of the objects, or not the repository (git lfs push --all origin, or set lfs_url)"
        return f"{hint} [HTTP {reply.status}{f': {text}' if text else ''}]"

    def _without_login(self, text: str) -> str:
        coded = self._login.partition(" ")[2]
        for secret in (coded, base64.b64decode(coded).decode("utf-8", "replace").partition(":")[2]):
            text = text.replace(secret, "***") if secret else text
        return text


def _why_no_object(status: int) -> str:
    if status in _GONE:
        return f"is not there (HTTP {status}): push it again with git lfs push --all"
    if status in _REDIRECTS:
        return f"redirects (HTTP {status}), which is not followed"
    return f"was refused (HTTP {status})"


__all__ = ["LfsClient"]
