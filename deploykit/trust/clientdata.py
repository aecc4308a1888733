"""What a browser has a passkey sign: the JSON text `clientData` (WebAuthn level 2, section 5.8.1). Pure.

Rules:

* It begins as the standard has browsers write it, with our challenge and the origin: ssh-keygen asks for that too.
* It is one JSON object in which no name stands twice, so every reader sees the same challenge and origin.
* A page inside a page of another origin (`crossOrigin`, `topOrigin`) is refused. Other names that browsers add are not.
"""

from __future__ import annotations

import base64
from typing import Final

from deploykit.errors import MessageError
from deploykit.trust.keyformat import MalformedBlob
from deploykit.wire.strictjson import parse

_BEGIN: Final = '{{"type":"webauthn.get","challenge":"{challenge}","origin":"{origin}"'


def check_client_data(data: bytes, *, challenge: bytes, origin: str) -> None:
    """Refuse the text that a passkey signed unless it is about these bytes, and of this origin.

    Args:
        data: the text.
        challenge: what had to be signed.
        origin: the web page; holds neither quotes nor backslashes.

    Raises:
        MalformedBlob: about something else, or with more than one meaning.
    """
    wanted = base64.urlsafe_b64encode(challenge).decode("ascii").rstrip("=")
    if not data.startswith(_BEGIN.format(challenge=wanted, origin=origin).encode("ascii")):
        raise MalformedBlob("its client data is not about this message and this web page")
    try:
        found = parse(data)
    except MessageError as error:
        raise MalformedBlob(f"its client data is not JSON with one meaning: {error.problem}") from None
    if not isinstance(found, dict):
        raise MalformedBlob("its client data is not a JSON object")
    if (found["type"], found["challenge"], found["origin"]) != ("webauthn.get", wanted, origin):
        raise MalformedBlob("its client data is not about this message and this web page")
    if found.get("crossOrigin", False) is not False or "topOrigin" in found:
        raise MalformedBlob("its client data is from a page inside another's page")


__all__ = ["check_client_data"]
