"""The fleet from a machine without a broker: through the API of a web console. What is signed is signed here."""
