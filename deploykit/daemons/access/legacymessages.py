"""The original's clear-text grants: which frames may be some, and how the site's label becomes its name. Pure."""

from __future__ import annotations

from collections.abc import Mapping
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
    body = relabelled(frame.body, labels)
    message = decode_legacy(frame.headers, body, destination, received)
    return message if isinstance(message, AccessGrantRequested) else None


def relabelled(body: bytes, labels: Mapping[str, SiteName]) -> bytes:
    """Return a body whose lines `Site: LABEL` name the site that has the label.

    >>> relabelled(b"Site: Example site\\nUser: a\\n", {"Example site": SiteName("example-site")})
    b'Site: example-site\\nUser: a\\n'
    """
    lines = body.split(b"\n")
    for at, line in enumerate(lines):
        text = line.decode("utf-8", "replace")
        if text.startswith(_SITE) and (site := labels.get(text.removeprefix(_SITE).strip())) is not None:
            lines[at] = f"{_SITE} {site}".encode()
    return b"\n".join(lines)


__all__ = ["is_legacy", "read_legacy", "relabelled"]
