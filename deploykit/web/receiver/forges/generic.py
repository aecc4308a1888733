"""A sender of one's own: the settings say where its JSON has what."""

from __future__ import annotations

from deploykit.settings.webhook import GenericMapping
from deploykit.web.receiver.forges.changes import pushed
from deploykit.web.receiver.forges.reading import acted_on, usable_id
from deploykit.web.receiver.forges.result import ForgeDelivery
from deploykit.web.receiver.forges.values import PayloadValue


def parse_generic(payload: PayloadValue, mapping: GenericMapping) -> ForgeDelivery:
    """Return what a request means by the mapping of the settings; every one counts as a push of one ref.

    Raises:
        WebhookRefused: repository, ref or new id is missing or wrong, or an old id is there and wrong.
    """

    def found(path: str, name: str = "mapping") -> PayloadValue:
        return payload.at(*path.split(".")) if path else PayloadValue(None, name)

    old = found(mapping.old)
    push = pushed(
        found(mapping.ref, "mapping.ref").ref(),
        old.object_id() if old.present and old.value != "" else None,
        found(mapping.new, "mapping.new").object_id(),
        pusher=found(mapping.pusher).label(),
    )
    delivery = usable_id(found(mapping.delivery).value)
    return acted_on(delivery, "push", found(mapping.repository, "mapping.repository").name(), (push,))


__all__ = ["parse_generic"]
