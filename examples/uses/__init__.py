"""Small models on data made in the code, as a user of jaxseq writes them."""
