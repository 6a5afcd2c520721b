"""The native CPU engine beside jaxseq without it and other libraries."""
