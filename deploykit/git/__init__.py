"""Git objects: formats, packs, commits, and the ways to an origin. Knows nothing of mirrors or of trees on disk."""
