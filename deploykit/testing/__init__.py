"""What users of deploykit (and deploykit itself) test with: an embedded STOMP broker, a fault proxy, a pytest plugin.

Rules: nothing here is for production. Importing this package loads none of it; take what you need from its modules:

* `deploykit.broker.server.EmbeddedBroker`: a real STOMP 1.0 to 1.2 broker in this process, with fault switches.
* `deploykit.testing.proxy.FaultProxy`: a TCP proxy that delays, slices, cuts and swallows; stands before any broker.
* `deploykit.testing.plugin`: the pytest plugin behind the `deploykit_broker` fixture.
"""

from __future__ import annotations
