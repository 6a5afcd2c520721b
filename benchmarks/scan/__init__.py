"""`jaxseq.scan` beside `lax.scan`, over bodies as people write them."""
