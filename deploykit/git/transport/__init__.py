"""How to reach an origin: its URL, packet lines, the protocol, and TCP, processes and HTTP to carry it."""
