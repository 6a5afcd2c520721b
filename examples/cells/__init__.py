"""Published cells as a user of `jaxseq.cell` writes them, one a file."""
