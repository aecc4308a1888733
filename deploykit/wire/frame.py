"""What goes over a STOMP connection: headers and a body. Bytes only, no meaning."""

from __future__ import annotations

from collections.abc import Mapping

import attrs


@attrs.frozen(slots=True)
class Frame:
    """Headers and body of one SEND or MESSAGE. The body is not shown in `repr`: it may hold what must not be logged."""

    headers: Mapping[str, str]
    body: bytes = attrs.field(repr=False)
