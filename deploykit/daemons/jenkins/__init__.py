"""Builds: pushes to build requests, and what the build server answers."""
