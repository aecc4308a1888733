"""A signed message inside another: its exact body, and its signature."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from deploykit.messages.base import Base64, unknown_fields


@attrs.frozen(kw_only=True, slots=True)
class SignedStatement:
    """A signed message that another one carries: its exact body, and the value of its signature header.

    Whoever reads it verifies it as if it had come by itself, and takes what it says from its body alone.
    """

    body: Base64 = attrs.field(repr=False)
    signature: Base64 = attrs.field(repr=False)
    extra: Mapping[str, object] = unknown_fields()
