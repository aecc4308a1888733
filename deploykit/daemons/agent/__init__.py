"""The node's daemon."""
