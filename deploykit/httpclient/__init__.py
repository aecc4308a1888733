"""HTTP as a client: one request, its answer within caps and a deadline; of build servers, channels, consoles."""
