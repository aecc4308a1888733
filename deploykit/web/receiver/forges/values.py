"""One value inside a payload, and where it stands: read by kind, refused by name.

Rules:

* `get` and `at` never fail: what is absent, null or of another kind is found out where a value is needed.
* Methods that return what decides (`ref`, `object_id`, `name`, `listed`) raise `WebhookRefused`, status 400.
* Methods that return what people read (`label`, `prose`, `time`, `count`) return it cut, or an empty value.
* An error names the path and the kind that was found, never the value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Final

import attrs

from deploykit.errors import InvalidName, MessageError, WebhookRefused
from deploykit.messages.base import one_line
from deploykit.messages.source import COMMIT_TEXT, NAME_TEXT
from deploykit.names import ObjectId, RefName, parse_object_id, parse_ref_name
from deploykit.wire.field_types import MAX_COUNT
from deploykit.wire.times import parse_time

#: Characters of the longest name of a repository that is looked up.
MAX_REPOSITORY: Final = 500
#: Changes of refs in one delivery that are published. Of a push with more the nodes' reconcile finds the others.
MAX_LISTED: Final = 1000
_INDEX: Final = re.compile("[0-9]{1,6}").fullmatch
_SHOWN_PATH: Final = 120
#: Not in any text: halves of surrogate pairs cannot be encoded, control characters but tab and newline are no prose.
_UNFIT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def clean(text: str) -> str:
    """Return a text that can be encoded, without control characters except tab and newline."""
    return _UNFIT.sub("\ufffd", text.replace("\r\n", "\n")) if _UNFIT.search(text) else text


@attrs.frozen(slots=True)
class PayloadValue:
    """A value and its path, `push.changes.0.new`; of an absent one the value is None."""

    value: object
    path: str = ""

    def get(self, key: str) -> PayloadValue:
        """Return the value under a key; an absent one where this is no object."""
        found = self.value.get(key) if isinstance(self.value, dict) else None
        return PayloadValue(found, f"{self.path}.{key}" if self.path else key)

    def at(self, *keys: str) -> PayloadValue:
        """Return the value under one key after the other; a number also counts the items of a list."""
        here = self
        for key in keys:
            here = here._item(int(key)) if isinstance(here.value, list) and _INDEX(key) else here.get(key)
        return here

    def _item(self, index: int) -> PayloadValue:
        items = self.value if isinstance(self.value, list) else []
        return PayloadValue(items[index] if index < len(items) else None, f"{self.path}.{index}")

    @property
    def present(self) -> bool:
        """Whether it is there and not null."""
        return self.value is not None

    # -- what decides ------------------------------------------------------------------------------------------------

    def ref(self, prefix: str = "") -> RefName:
        """Return a full name of a ref; with a prefix, of the short name that stands here.

        Raises:
            WebhookRefused: it is none.
        """
        text = self.text()
        try:
            return parse_ref_name(prefix + text)
        except InvalidName:
            raise self.refused("not an acceptable ref", "expected refs/heads/NAME or refs/tags/NAME") from None

    def object_id(self) -> ObjectId:
        """Return an object id, all zeros included.

        Raises:
            WebhookRefused: it is none.
        """
        text = self.text()
        try:
            return parse_object_id(text)
        except InvalidName:
            raise self.refused("not an object id", "expected 40 or 64 lower-case hex digits") from None

    def name(self) -> str:
        """Return a name as the forge has it: one line, not empty, bounded.

        Raises:
            WebhookRefused: it is none.
        """
        text = self.text()
        if not text or len(text) > MAX_REPOSITORY or not text.isprintable():
            raise self.refused("not a name", f"expected 1 to {MAX_REPOSITORY} printable characters")
        return text

    def text(self) -> str:
        """Return a text of any length.

        Raises:
            WebhookRefused: it is absent or of another kind.
        """
        if not isinstance(self.value, str):
            raise self.refused("expected text", "")
        return self.value

    def listed(self) -> tuple[PayloadValue, ...]:
        """Return the items of a list, at most `MAX_LISTED`.

        Raises:
            WebhookRefused: it is absent or of another kind.
        """
        if not isinstance(self.value, list):
            raise self.refused("expected a list", "")
        return tuple(self._item(i) for i in range(min(len(self.value), MAX_LISTED)))

    def refused(self, problem: str, remedy: str) -> WebhookRefused:
        """Return the error that names this field, to be raised."""
        if self.value is None:
            problem = "missing"
        elif problem.startswith("expected"):
            problem = f"{problem}, not {_kind(self.value)}"
        return WebhookRefused(f"{one_line(self.path, _SHOWN_PATH)}: {problem}", remedy, status=400)

    # -- what people read --------------------------------------------------------------------------------------------

    def label(self) -> str:
        """Return a text on one line, cut to what a name may have; empty where there is none."""
        return one_line(clean(self.value[: 4 * NAME_TEXT]), NAME_TEXT) if isinstance(self.value, str) else ""

    def prose(self) -> str:
        """Return a text of several lines, cut to what a commit's message may have; empty where there is none."""
        return clean(self.value[:COMMIT_TEXT]).rstrip("\n") if isinstance(self.value, str) else ""

    def time(self) -> str:
        """Return a time in ISO 8601 as it stands, or of milliseconds since 1970; empty where there is none."""
        if isinstance(self.value, int) and not isinstance(self.value, bool) and 0 <= self.value < 2**53:
            try:
                return (datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=self.value)).isoformat()
            except OverflowError:
                return ""
        try:
            parse_time(self.value)
        except MessageError:
            return ""
        return str(self.value)

    def count(self) -> int:
        """Return a number of things, at most what a message may carry; zero where there is none."""
        is_count = isinstance(self.value, int) and not isinstance(self.value, bool) and self.value > 0
        return min(self.value, MAX_COUNT) if is_count and isinstance(self.value, int) else 0

    def newest(self, most: int, *, reverse: bool) -> Iterator[PayloadValue]:
        """Yield at most so many items, from the first or in reverse from the last; none where there is no list."""
        size = len(self.value) if isinstance(self.value, list) else 0
        order = reversed(range(size)) if reverse else iter(range(size))
        return (self._item(i) for i in islice(order, most))

    @property
    def size(self) -> int:
        """How many items a list has; zero where there is none."""
        return len(self.value) if isinstance(self.value, list) else 0


def first_label(*values: PayloadValue) -> str:
    """Return the first text for people that is not empty."""
    return next((label for label in (value.label() for value in values) if label), "")


def _kind(value: object) -> str:
    """Return what JSON calls the kind of a value."""
    match value:
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case list():
            return "a list"
        case dict():
            return "an object"
    return "null"


__all__ = ["MAX_LISTED", "MAX_REPOSITORY", "PayloadValue", "clean", "first_label"]
