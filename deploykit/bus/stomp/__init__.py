"""STOMP itself: frames, CONNECT, what brokers do differently, and one connection."""
