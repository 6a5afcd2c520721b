"""The server of `examples/serving` under load, with the networks of three libraries."""
