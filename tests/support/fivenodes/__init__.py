"""Five nodes with agents of their own, real repositories and sites, and whoever rolls out to them."""
