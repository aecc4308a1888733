"""The webhook receiver: raw bytes verified, parsed by forge, put into the outbox before the answer."""
