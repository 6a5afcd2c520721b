"""Training steps as repositories write them, by `lax.scan` and by `jaxseq.scan`."""
