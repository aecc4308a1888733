"""One human line, for chat and `deploykit watch`."""

from __future__ import annotations

from typing import ClassVar

import attrs

from deploykit.messages.base import Message, one_line


@attrs.frozen(kw_only=True, slots=True)
class Notice(Message):
    """A line for people. No machine acts on it."""

    TYPE: ClassVar[str] = "deploykit.notice.v1"

    text: str

    @property
    def summary(self) -> str:
        return one_line(self.text)
