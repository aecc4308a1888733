"""What a handler answers to a delivery, as the bus would understand it."""

from __future__ import annotations

from deploykit.bus.delivery import Delivery, Handler
from deploykit.bus.verdicts import Ack, Verdict
from deploykit.errors import UsageError


def verdict_of(handler: Handler, delivery: Delivery) -> Verdict:
    """Call a handler; return the verdict that it returned or raised. None is `Ack`.

    Raises:
        UsageError: it returned something that is no verdict.
    """
    try:
        returned: object = handler(delivery)
    except Verdict as raised:
        return raised
    if returned is None:
        return Ack()
    if not isinstance(returned, Verdict):
        raise UsageError(
            f"the handler of {delivery.destination} returned {type(returned).__name__}, which is no verdict",
            "return Ack, Retry, Reject or None",
        )
    return returned
