"""The durable subscriptions of a node's daemons: their names, and how a broker is made to forget them."""

from __future__ import annotations

from collections.abc import Iterable

from deploykit.bus import Bus


def named_subscriptions(topics: Iterable[str], name: str) -> tuple[tuple[str, str], ...]:
    """Return each topic once with its durable name: `name` for the first, `name-1`, `name-2` for the others.

    >>> named_subscriptions(["/topic/a", "/topic/b", "/topic/a"], "deploykit-web1-access")
    (('/topic/a', 'deploykit-web1-access'), ('/topic/b', 'deploykit-web1-access-1'))
    """
    return tuple((topic, f"{name}-{at}" if at else name) for at, topic in enumerate(dict.fromkeys(topics)))


def forget_subscriptions(bus: Bus, subscriptions: Iterable[tuple[str, str | None]], timeout: float) -> None:
    """Delete durable subscriptions at the broker, and what waits there for them.

    Args:
        bus: a started bus, with the client id that they were made with.
        subscriptions: topic and durable name of each.
        timeout: seconds until one must be active, which it is before it is deleted.
    """
    for topic, name in subscriptions:
        subscription = bus.subscribe(topic, lambda _: None, durable=name)
        subscription.wait_active(timeout)
        subscription.unsubscribe(forget=True)


__all__ = ["forget_subscriptions", "named_subscriptions"]
