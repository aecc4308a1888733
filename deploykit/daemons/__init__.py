"""The daemons: each wires packages of the lower layers together and decides nothing they could decide."""
