"""Payloads of forges, read: bytes that were verified and decoded become `ForgeDelivery`.

Rules:

* Pure functions of headers and payload: no clock, no network, no settings but the mapping of `generic`.
* Every string is hostile. A field that decides what is published is refused when it is missing or wrong, by its name.
* What is only for people (pusher, commits, titles) is left out when it cannot be read: it never loses a push.
* URLs in a payload are not read. A node asks the origin in its own settings.
* A payload is a hint: deliveries come late, twice, out of order or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from deploykit.errors import WebhookRefused
from deploykit.settings.webhook import Forge, GenericMapping
from deploykit.web.receiver.forges.result import ForgeDelivery, Pushed

_MAPPING: Final = GenericMapping()


def parse(
    forge: Forge, headers: Mapping[str, str], payload: object, mapping: GenericMapping = _MAPPING
) -> ForgeDelivery:
    """Return what a forge's request means.

    Args:
        forge: what sent it, as the settings say.
        headers: their names in lower case.
        payload: the decoded JSON.
        mapping: where a `generic` sender has what.

    Raises:
        WebhookRefused: it is not a payload of this forge, or one that cannot be acted on; names the field (status 400).
    """
    raise WebhookRefused("not implemented")


__all__ = ["ForgeDelivery", "Pushed", "parse"]
