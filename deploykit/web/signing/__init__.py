"""Signing in the browser: where passkeys sign, what they are offered, and how a new one is enrolled."""
