"""What every forge's parser begins and ends with: the event, the delivery's id, and the result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from deploykit.errors import WebhookRefused
from deploykit.messages.base import one_line
from deploykit.names import is_zero
from deploykit.web.receiver.forges.changes import each_ref_once
from deploykit.web.receiver.forges.result import ForgeDelivery, Pushed
from deploykit.web.receiver.forges.values import MAX_LISTED, MAX_REPOSITORY, PayloadValue

#: Characters of an event's name and of a delivery's id.
MAX_EVENT: Final = 80
MAX_DELIVERY: Final = 200


def event_of(headers: Mapping[str, str], *names: str) -> str:
    """Return the event that the first of these headers names, on one line.

    Raises:
        WebhookRefused: none is there; names the header.
    """
    for name in names:
        event = one_line(headers.get(name, "").strip(), MAX_EVENT)
        if event:
            return event
    shown = "-".join(part.capitalize() for part in names[0].split("-")).replace("Github", "GitHub")
    raise WebhookRefused(f"header {shown}: missing", "the settings name another forge?", status=400)


def delivery_id(headers: Mapping[str, str], *names: str) -> str:
    """Return the delivery's id from the first of these headers; empty where none is usable."""
    return next((i for i in (usable_id(headers.get(name, "")) for name in names) if i), "")


def usable_id(value: object) -> str:
    """Return an id of a delivery, or empty text if it is none."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value) if 0 <= value < 2**64 else ""
    text = value.strip() if isinstance(value, str) else ""
    return text if len(text) <= MAX_DELIVERY and text.isascii() and text.isprintable() else ""


def named_repository(repository: PayloadValue) -> str:
    """Return the name of the repository that an ignored event is about; empty where it has none."""
    value = repository.value
    return value if isinstance(value, str) and len(value) <= MAX_REPOSITORY and value.isprintable() else ""


def acted_on(delivery: str, event: str, repository: str, pushes: Iterable[Pushed], *, total: int = 1) -> ForgeDelivery:
    """Return a delivery that counts; one without any change is ignored, one with too many is cut and says so.

    A ref that points to what it pointed to is left out: git announces none such. Gitea and Gogs send one where a
    person presses "Test Delivery", which must not start a build; GitLab where the branch has but one commit.

    Args:
        total: how many changes the payload lists.
    """
    listed = each_ref_once(pushes)
    kept = tuple(push for push in listed if push.old != push.new or is_zero(push.new))
    ignored_for = "" if kept else "each ref stays where it was: a test?" if listed else "it changes no ref"
    return ForgeDelivery(
        id=delivery,
        event=event,
        repository=repository,
        pushes=kept,
        ignored=ignored_for,
        notice=f"{one_line(repository)}: only the first {MAX_LISTED} of {total} changed refs are announced"
        if total > MAX_LISTED
        else "",
    )


def ignored(delivery: str, event: str, why: str, repository: PayloadValue, notice: str = "") -> ForgeDelivery:
    """Return a delivery of which nothing is published."""
    return ForgeDelivery(
        id=delivery, event=event, ignored=why, repository=named_repository(repository), notice=one_line(notice)
    )


__all__ = ["acted_on", "delivery_id", "event_of", "ignored", "named_repository", "usable_id"]
