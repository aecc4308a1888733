"""An event of a type this version does not know, kept whole: it can be shown, counted and forwarded."""

from __future__ import annotations

import attrs

from deploykit.messages.base import Identifier, Message, one_line


@attrs.frozen(kw_only=True, slots=True)
class Unknown(Message):
    """A CloudEvent whose `type` is not one of ours, or of a newer version. Acknowledge it; never act on it.

    Args:
        type: its wire type.
        data: the JSON value as it came, or bytes where the event held `data_base64`.
        content_type: its `datacontenttype`; may be empty.
    """

    type: Identifier
    data: object = attrs.field(default=None, hash=False, repr=False)
    content_type: str = ""

    @property
    def summary(self) -> str:
        return one_line(f"{self.type} from {self.source}")
