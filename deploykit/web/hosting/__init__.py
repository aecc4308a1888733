"""Rollouts that a console coordinates: each in a thread on its bus, under a lease of the ledger."""
