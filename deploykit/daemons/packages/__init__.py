"""The packages daemon: a message announces a new package, and the sources that have it are read anew."""
