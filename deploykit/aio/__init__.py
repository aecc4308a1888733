"""The bus for asyncio: `AsyncBus` publishes and subscribes without ever blocking the event loop.

    async with AsyncBus("stomp://broker.example.net") as bus:
        await bus.publish("/topic/news", Frame({}, b"hello"))
        async with bus.subscribe("/queue/work") as deliveries:
            async for delivery in deliveries:
                ...
        async with bus.listen(RefUpdated) as pushes:
            async for push in pushes:
                ...

Rules:

* One `deploykit.Bus` does the work, on threads of its own. What waits there waits in a thread, never in the loop.
* A delivery is acknowledged when the next one is asked for, or when the `async with` block of the subscription ends
  without an exception. `retry` and `reject` say otherwise.
* A delivery that is in hand when an exception ends the block, or when the bus is stopped, goes back to the broker.
* Messages are taken in the order in which `publish` was called, also while they wait for room.
"""

from __future__ import annotations

from deploykit.aio.client import AsyncBus
from deploykit.aio.subscription import AsyncSubscription

__all__ = ["AsyncBus", "AsyncSubscription"]
