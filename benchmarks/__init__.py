"""Times jaxseq beside the libraries that people use today; see README.md."""
