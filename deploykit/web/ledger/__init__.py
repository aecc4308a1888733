"""What the console must not lose: journals, proposals, sessions, tokens, passkeys. The projection is apart."""
