"""Git LFS: the objects that pointer files in a mirror's trees stand for, kept beside its packs."""
