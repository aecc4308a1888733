"""What a webhook secret must look like: GitLab's signing token, Azure's user and password. Pure.

No text here shows a secret.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

from deploykit.errors import SettingsError
from deploykit.settings.webhook import WebhookSourceSettings

#: How GitLab's signing tokens begin, and those of Standard Webhooks at large.
SIGNING_TOKEN: Final = b"whsec_"
#: Bytes of the shortest key of a signing token: a shorter one was cut off.
_LEAST_KEY: Final = 16


def signing_key_of(token: str) -> bytes:
    """Return the key that a signing token `whsec_…` stands for.

    Raises:
        SettingsError: it is none.
    """
    try:
        key = base64.b64decode(token.removeprefix(SIGNING_TOKEN.decode()).encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise SettingsError("what follows whsec_ is not base64", "copy the whole signing token") from None
    if len(key) < _LEAST_KEY:
        raise SettingsError("what follows whsec_ is too short", "copy the whole signing token")
    return key


def check_secret(text: str, source: WebhookSourceSettings) -> None:
    """Make sure that a source's secret can verify anything.

    Raises:
        SettingsError: it cannot; the text says what was expected.
    """
    if not text.strip():
        raise SettingsError("holds nothing but spaces", "write the secret into it, as it is set at the sender")
    if source.forge == "gitlab" and text.startswith(SIGNING_TOKEN.decode()):
        signing_key_of(text)
    if source.forge == "azure" and not source.header and not text.partition(":")[2]:
        raise SettingsError("expected USER:PASSWORD", "write it as it is given to Azure DevOps, or set header")
