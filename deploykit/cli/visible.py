"""Text from elsewhere on a terminal; see `operations.visible`."""

from __future__ import annotations

from deploykit.operations.visible import visible

__all__ = ["visible"]
