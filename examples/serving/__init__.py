"""A character model that many readers share over HTTP."""
