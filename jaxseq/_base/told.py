"""The logger `jaxseq`."""

import logging

log = logging.getLogger("jaxseq")  # without a handler, warnings go to stderr


def tell(what: str, by: str, why: str | None = None) -> None:
    """Logs at level DEBUG which code runs something, and why no other does."""
    log.debug("%s: %s%s", what, by, "" if why is None else f": {why}")
