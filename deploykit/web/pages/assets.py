"""Static files of the console: read once, named by their content, compressed once.

Rules:

* A name holds a hash of the content, so browsers keep the file for ever, and a new version has another name.
* A module names the modules that it imports by these names, so it never gets another version of them.
* Names are looked up in a table: no path is ever made of what a browser sends.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Final

import attrs
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_IMPORT: Final = re.compile(rb'from "\./([a-z]+\.mjs)"')
#: Browsers ask for these by their plain names too; so does a person who looks for them.
_FOREVER: Final = "public, max-age=31536000, immutable"
_SOON: Final = "public, max-age=300"


@attrs.frozen(kw_only=True, slots=True)
class Asset:
    """A static file.

    Args:
        name: as in its address, with the hash.
        packed: the same, compressed by gzip.
    """

    name: str
    media_type: str
    content: bytes
    packed: bytes


@cache
def assets() -> Mapping[str, Asset]:
    """Return every static file by its plain name."""
    static = resources.files("deploykit.web.pages").joinpath("static")
    files = {file.name: file.read_bytes() for file in static.iterdir() if f".{file.name.rpartition('.')[2]}" in _TYPES}
    found: dict[str, Asset] = {}
    for name in sorted(files):
        _add(name, files, found)
    return found


def _add(name: str, files: Mapping[str, bytes], found: dict[str, Asset]) -> Asset:
    """Add a file, and before it what it imports."""
    if name in found:
        return found[name]

    def hashed(imported: re.Match[bytes]) -> bytes:
        return b'from "./' + _add(imported[1].decode(), files, found).name.encode() + b'"'

    stem, _, ending = name.rpartition(".")
    content = _IMPORT.sub(hashed, files[name]) if ending == "mjs" else files[name]
    found[name] = Asset(
        name=f"{stem}.{hashlib.sha256(content).hexdigest()[:12]}.{ending}",
        media_type=_TYPES[f".{ending}"],
        content=content,
        packed=gzip.compress(content, mtime=0),
    )
    return found[name]


@cache
def _by_address() -> Mapping[str, Asset]:
    return {asset.name: asset for asset in assets().values()}


def static_file(request: Request) -> Response:
    """Return a static file: by its name with hash for ever, by its plain name for minutes."""
    name = str(request.path_params["name"])
    asset = _by_address().get(name)
    headers = {"Cache-Control": _FOREVER if asset else _SOON, "Vary": "Accept-Encoding"}
    asset = asset or assets().get(name)
    if asset is None:
        return PlainTextResponse("There is no such file.\n", status_code=404)
    if takes_gzip(request):
        return Response(asset.packed, media_type=asset.media_type, headers={**headers, "Content-Encoding": "gzip"})
    return Response(asset.content, media_type=asset.media_type, headers=headers)


def takes_gzip(request: Request) -> bool:
    """Return whether a browser takes an answer compressed by gzip."""
    offered = request.headers.get("accept-encoding", "").lower().split(",")
    return any(one.strip() in ("gzip", "*") or one.strip().startswith("gzip;q=1") for one in offered)
