"""Requests as forges send them: see `deploykit.testing.forges`, which the demo uses, too."""

from __future__ import annotations

from deploykit.testing.forgedevents import ELSEWHERE, ForgedEvent
from deploykit.testing.forgepayloads import PAYLOADS
from deploykit.testing.forges import (
    DELIVERY,
    FORGES,
    NEW,
    OLD,
    ZERO,
    ForgedChange,
    ForgedCommit,
    ForgedRequest,
    forged,
    requests_for,
    signed,
)

__all__ = [
    "DELIVERY",
    "ELSEWHERE",
    "FORGES",
    "NEW",
    "OLD",
    "PAYLOADS",
    "ZERO",
    "ForgedChange",
    "ForgedCommit",
    "ForgedEvent",
    "ForgedRequest",
    "forged",
    "requests_for",
    "signed",
]
