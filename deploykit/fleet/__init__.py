"""Asking nodes to do something, and believing what they answer."""

from deploykit.fleet.coordinator import Answer, Coordinator

__all__ = ["Answer", "Coordinator"]
