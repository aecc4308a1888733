"""What the operating system gives: durable writes, locks, users and owners, addresses, deadlines, back-off."""
