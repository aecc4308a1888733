"""What is asked of an LFS server, and what its answer allows: the batch API of Git LFS. Pure.

The source is `docs/api/batch.md` of Git LFS. Rules:

* An answer is a stranger's text. What it does not say exactly as the API has it is no answer.
* An object is downloaded as its pointer says, not as the server does: an answer with another size is refused.
* A download goes to https, or to plain http where the mirror allows that. Its headers go there and nowhere else, and
  none of them changes what HTTP itself says.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit

import attrs

from deploykit.errors import OriginError
from deploykit.git.lfspointer import LfsPointer
from deploykit.system.oneline import one_line

MEDIA_TYPE: Final = "application/vnd.git-lfs+json"
#: Objects that are asked for at once, and their bytes: addresses expire, so few are asked for ahead.
_MOST_OBJECTS: Final = 100
_MOST_BYTES: Final = 1 << 30
#: Bytes of an answer: of 100 objects with the longest addresses and headers.
MOST_ANSWER: Final = 4 << 20
_MOST_URL: Final = 8192
_MOST_HEADERS: Final = 32
_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_VALUE: Final = re.compile(r"[\x20-\x7e\x80-\xff]{0,8192}")
_HOST: Final = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+")
#: What an action must not say: where the request goes, how long it is, how the answer is coded.
_OUR_HEADERS: Final = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "keep-alive", "te", "trailer", "upgrade", "expect"}
    | {"accept-encoding", "range", "if-range", "proxy-authorization", "proxy-connection"}
)
_BY_CODE: Final[Mapping[int, str]] = {
    404: "the server does not have it (push it: git lfs push --all origin)",
    410: "the server had it and removed it (push it again: git lfs push --all origin)",
    422: "the server does not take the pointer's id or size for valid (git lfs fsck)",
}


@attrs.frozen(kw_only=True, slots=True)
class Download:
    """Where an object is to be had.

    Args:
        headers: may hold secrets of the server, as the URL may.
        authenticated: the server asks for no further login.
    """

    url: str = attrs.field(repr=False)
    headers: tuple[tuple[str, str], ...] = attrs.field(default=(), repr=False)
    authenticated: bool = False


#: For each object a way to have it, or why there is none: one line.
Answer = Mapping[LfsPointer, "Download | str"]


def batches(pointers: Iterable[LfsPointer]) -> Iterator[tuple[LfsPointer, ...]]:
    """Yield the objects to ask for together."""
    batch: list[LfsPointer] = []
    size = 0
    for pointer in pointers:
        if batch and (len(batch) == _MOST_OBJECTS or size + pointer.size > _MOST_BYTES):
            yield tuple(batch)
            batch, size = [], 0
        batch.append(pointer)
        size += pointer.size
    if batch:
        yield tuple(batch)


def question(pointers: Sequence[LfsPointer]) -> bytes:
    """Return the body of a request for downloads."""
    objects = [{"oid": each.oid, "size": each.size} for each in pointers]
    document = {"operation": "download", "transfers": ["basic"], "objects": objects, "hash_algo": "sha256"}
    return json.dumps(document).encode()


def read_answer(body: bytes, asked: Sequence[LfsPointer], *, allow_http: bool) -> Answer:
    """Return what the server says of each object that was asked for.

    Raises:
        OriginError: it is no answer to that question; its text shows nothing of the body.
    """
    document = _parsed(body)
    if document.get("transfer", "basic") != "basic" or document.get("hash_algo", "sha256") != "sha256":
        raise _no_answer("it wants another way of transfer than basic, or another hash than sha256")
    objects = document.get("objects")
    if not isinstance(objects, list):
        raise _no_answer("it has no list of objects")
    by_oid = {pointer.oid: pointer for pointer in asked}
    found: dict[LfsPointer, Download | str] = {}
    for each in objects:
        oid = each.get("oid") if isinstance(each, dict) else None
        pointer = by_oid.pop(oid, None) if isinstance(oid, str) else None
        if pointer is None:
            raise _no_answer("it names an object that was not asked for, or one twice")
        found[pointer] = _of_object(each, pointer, allow_http=allow_http)
    return found | dict.fromkeys(by_oid.values(), "the server's answer does not name it")


def reason_of(body: bytes) -> str:
    """Return what the body of an error says to people, one bounded line; empty where it is not of this API."""
    try:
        message = _parsed(body).get("message")
    except OriginError:
        return ""
    return one_line(message, 200) if isinstance(message, str) else ""


def _of_object(listed: Mapping[str, object], pointer: LfsPointer, *, allow_http: bool) -> Download | str:
    size, error, actions = listed.get("size"), listed.get("error"), listed.get("actions")
    if isinstance(error, dict):
        code, message = error.get("code"), error.get("message")
        known = _BY_CODE.get(code) if isinstance(code, int) else None
        text = one_line(message, 100) if isinstance(message, str) else "no reason given"
        return known or f"the server refuses it: {text}"
    if type(size) is not int or size != pointer.size:
        return "the server says another size than the pointer"
    action = actions.get("download") if isinstance(actions, dict) else None
    if not isinstance(action, dict):
        return "the server offers no download"
    href, header = action.get("href"), action.get("header")
    if header is None:
        header = {}
    if problem := _url_problem(href, allow_http=allow_http) if isinstance(href, str) else "it is no text":
        return f"the server names an address for it that is not followed: {problem}"
    if not isinstance(href, str) or not isinstance(header, dict) or not _are_headers(header):
        return "the server asks for headers that are not sent"
    return Download(url=href, headers=tuple(header.items()), authenticated=listed.get("authenticated") is True)


def _url_problem(url: str, *, allow_http: bool) -> str:
    if len(url) > _MOST_URL or not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        return "it is too long, or holds what no URL has"
    try:
        parts = urlsplit(url)
        bad_host = not _HOST.fullmatch(parts.hostname or "") or parts.port == 0
    except ValueError:
        return "it is not a URL"
    checks = (
        (parts.scheme != "https" and not (parts.scheme == "http" and allow_http), "it is not https"),
        (bad_host, "it has no host"),
        ("@" in parts.netloc, "it holds a login"),
        ("#" in url, "it has a fragment"),
    )
    return next((problem for wrong, problem in checks if wrong), "")


def _are_headers(header: Mapping[object, object]) -> bool:
    names = [name.lower() for name in header if isinstance(name, str) and _NAME.fullmatch(name)]
    values = [value for value in header.values() if isinstance(value, str) and _VALUE.fullmatch(value)]
    return len(set(names)) == len(values) == len(header) <= _MOST_HEADERS and not _OUR_HEADERS & set(names)


def _parsed(body: bytes) -> Mapping[str, object]:
    try:
        document = json.loads(body.decode(), object_pairs_hook=_object)
    except (ValueError, RecursionError):
        raise _no_answer("it is not JSON") from None
    if not isinstance(document, dict):
        raise _no_answer("it is not a JSON object")
    return document


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ValueError
    return out


def _no_answer(why: str) -> OriginError:
    return OriginError(f"the LFS server's answer cannot be used: {why}", "check lfs_url, and the server")


__all__ = ["MEDIA_TYPE", "MOST_ANSWER", "Answer", "Download", "batches", "question", "read_answer", "reason_of"]
