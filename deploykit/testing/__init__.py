"""What users of deploykit test with: a fake bus, an embedded STOMP broker, a fault proxy, a pytest plugin.

Nothing here is for production. Importing this package loads none of it; import its modules:

* `deploykit.testing.fakes.FakeBus`: a `Bus` without a network, whose broker is the test; for handlers and publishers.
* `deploykit.broker.server.EmbeddedBroker`: a real STOMP 1.0 to 1.2 broker in this process, with fault switches.
* `deploykit.testing.proxy.FaultProxy`: a TCP proxy that delays, slices, cuts and swallows, before any broker.
* `deploykit.testing.plugin`: the pytest plugin with the fixtures `deploykit_broker` and `deploykit_proxy`.
* `deploykit.testing.forges`: requests as forges send them to a webhook receiver, signed.
* `deploykit.testing.strategies`: hypothesis strategies for names and messages (extra `testing`).
"""

from __future__ import annotations
