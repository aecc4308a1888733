"""The ways to an origin: addresses, packet lines, the protocol, and TCP, processes and HTTP to carry it."""
