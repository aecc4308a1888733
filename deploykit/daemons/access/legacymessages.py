"""The original's clear-text grants: which frames may be some, and how the site's label becomes its name. Pure.

Rules:

* A label counts in whatever case it comes, as long as that means one site.
* What is the name of a site is that site, whoever has it for a label (the settings refuse such a label).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final

from deploykit.messages import AccessGrantRequested
from deploykit.names import SiteName
from deploykit.settings.access import AccessSettings
from deploykit.trust.signature import HEADER
from deploykit.wire import CONTENT_TYPE, Frame
from deploykit.wire.legacy import decode_legacy

_SITE: Final = "Site:"


def is_legacy(frame: Frame) -> bool:
    """Return whether a frame is unsigned and not of our own format."""
    return HEADER not in frame.headers and frame.headers.get("content-type", "") != CONTENT_TYPE


def read_legacy(
    frame: Frame, destination: str, received: datetime, settings: AccessSettings
) -> AccessGrantRequested | None:
    """Return the grant that a frame of the original's asks for; None where it asks for none.

    Its form sends a site's label, such as `Example site`; settings say which site has it.

    Raises:
        MessageError: no publisher of the original's writes such a body.
    """
    labels = {site.label: name for name, site in settings.sites.items() if site.label}
    body = relabelled(frame.body, labels, settings.sites)
    message = decode_legacy(frame.headers, body, destination, received)
    return message if isinstance(message, AccessGrantRequested) else None


def relabelled(body: bytes, labels: Mapping[str, SiteName], names: Iterable[SiteName] = ()) -> bytes:
    """Return a body whose lines `Site: LABEL` name the site that has the label; those with one of `names` stay.

    >>> relabelled(b"Site: Example site\\nUser: a\\n", {"Example site": SiteName("example-site")})
    b'Site: example-site\\nUser: a\\n'
    """
    known = set(names)
    lines = body.split(b"\n")
    first = next((at for at, line in enumerate(lines) if line.strip()), 0)
    for at, line in enumerate(lines):
        text = line.decode("utf-8", "replace")
        text = text.lstrip("\ufeff \t") if at == first else text  # as the decoder reads the body
        if not text.startswith(_SITE):
            continue
        label = text.removeprefix(_SITE).strip()
        if label not in known and (site := _site_of(label, labels)) is not None:
            lines[at] = f"{_SITE} {site}".encode() + (b"\r" if line.endswith(b"\r") else b"")
    return b"\n".join(lines)


def _site_of(label: str, labels: Mapping[str, SiteName]) -> SiteName | None:
    """Return the site with a label; where none has just this one, the one that has it in another case."""
    if label in labels:
        return labels[label]
    found = {site for own, site in labels.items() if _folded(own) == _folded(label)}
    return found.pop() if len(found) == 1 else None


def _folded(label: str) -> str:
    return " ".join(unicodedata.normalize("NFC", label).casefold().split())


__all__ = ["is_legacy", "read_legacy", "relabelled"]
