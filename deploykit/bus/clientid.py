"""The client id, which ActiveMQ keeps durable subscriptions by. Pure.

Rules:

* a `client_id` of the settings is used for everything;
* else one durable subscription lends its name, and with more than one the settings must have a `client_id`;
* a subscription's own connection names a client only where that is needed: some brokers allow each name once.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from deploykit.bus.stomp.compile import SubscriptionSpec, is_topic
from deploykit.bus.stomp.dialect import Dialect
from deploykit.errors import DialectError


def choose_client_id(own: str, durable: AbstractSet[str], *, alone: bool) -> str:
    """Return the client id for CONNECT; may be empty.

    Args:
        own: from the settings; may be empty.
        durable: the names of the durable subscriptions.
        alone: the connection is a subscription's own.
    """
    if own:
        return own if durable or not alone else ""
    return next(iter(durable)) if len(durable) == 1 else ""


def has_client_id(
    dialect: Dialect, spec: SubscriptionSpec, own: str, durable: AbstractSet[str], *, connected_as: str
) -> bool:
    """Return whether the connection has the client id that a subscription needs there, if it needs any.

    Args:
        dialect: the broker's.
        spec: the subscription.
        own, durable: as for `choose_client_id`.
        connected_as: the client id of the present connection.

    Raises:
        DialectError: there is none, and none can be chosen.
    """
    if spec.durable is None or not dialect.client_id or not is_topic(spec.destination) or own:
        return True
    if len(durable | {spec.durable}) > 1:
        raise DialectError(
            f"{dialect.title} keeps durable subscriptions by client id, and there is none",
            "set client_id to a name that no other connection uses",
        )
    return connected_as == spec.durable
