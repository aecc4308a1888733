"""Daemons under load for as long as one likes: memory, descriptors and threads must stay flat."""
