"""Chaos runs of the bus and the relay, on real brokers, with their books: `nox -s chaos`, or `python -m tests.chaos`.

A run sends for a bounded time while a driver, by a seeded schedule, kills, cuts, freezes, slows and fills what is
underneath; then everything is healed, and the books are compared. `accounts` says what a violation is.
"""
