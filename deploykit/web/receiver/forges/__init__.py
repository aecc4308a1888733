"""Payloads of forges, read: bytes that were verified and decoded become `ForgeDelivery`.

Rules:

* Pure functions of headers and payload: no clock, no network, no settings but the mapping of `generic`.
* Every string is hostile. A field that decides what is published is refused when it is missing or wrong, by its name.
* What is only for people (pusher, commits, titles) is left out when it cannot be read: it never loses a push.
* URLs in a payload are not read. A node asks the origin in its own settings.
* A payload is a hint: deliveries come late, twice, out of order or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from deploykit.errors import WebhookRefused
from deploykit.settings.webhook import Forge, GenericMapping
from deploykit.web.receiver.forges.azure import parse_azure
from deploykit.web.receiver.forges.bitbucket import parse_bitbucket, parse_bitbucket_dc
from deploykit.web.receiver.forges.generic import parse_generic
from deploykit.web.receiver.forges.gitea import parse_gitea
from deploykit.web.receiver.forges.github import parse_github
from deploykit.web.receiver.forges.gitlab import parse_gitlab
from deploykit.web.receiver.forges.result import ForgeDelivery, Pushed
from deploykit.web.receiver.forges.values import PayloadValue

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
    if not isinstance(payload, dict):
        raise WebhookRefused("body: expected a JSON object", status=400)
    return _PARSERS[forge](headers, PayloadValue(payload), mapping)


_PARSERS: Final[Mapping[Forge, Callable[[Mapping[str, str], PayloadValue, GenericMapping], ForgeDelivery]]] = {
    "github": lambda headers, payload, _mapping: parse_github(headers, payload),
    "gitlab": lambda headers, payload, _mapping: parse_gitlab(headers, payload),
    "gitea": lambda headers, payload, _mapping: parse_gitea("gitea", headers, payload),
    "forgejo": lambda headers, payload, _mapping: parse_gitea("forgejo", headers, payload),
    "gogs": lambda headers, payload, _mapping: parse_gitea("gogs", headers, payload),
    "bitbucket": lambda headers, payload, _mapping: parse_bitbucket(headers, payload),
    "bitbucket-dc": lambda headers, payload, _mapping: parse_bitbucket_dc(headers, payload),
    "azure": lambda _headers, payload, _mapping: parse_azure(payload),
    "generic": lambda _headers, payload, mapping: parse_generic(payload, mapping),
}


__all__ = ["ForgeDelivery", "Pushed", "parse"]
