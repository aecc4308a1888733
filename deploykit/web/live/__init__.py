"""What changes while a page is open: a ring of events, and the stream of them to browsers."""
