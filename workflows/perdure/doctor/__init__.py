"""What may be wrong with this machine, these settings and this store, and how to mend it."""
