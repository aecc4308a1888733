"""Hundreds of simulated nodes in one asyncio process: real connections, frames and signatures, no sites.

model.py    what one node does with a command, and which faults it has (pure)
stomp.py    a minimal STOMP client for asyncio
node.py     one node on one connection
process.py  the process, and how a test starts it
desk.py     the operator, who runs the command line against it
"""
