"""One module for each kind of old file: how it is recognized, its table of keys, its conversion."""
