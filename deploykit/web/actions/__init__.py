"""What people do from the console: rollouts, locks, access. Pages and API call it, and nothing else does."""
