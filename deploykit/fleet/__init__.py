"""Send commands to nodes, and collect the answers that can be believed."""

from deploykit.fleet.asking import Answer, Coordinator

__all__ = ["Answer", "Coordinator"]
