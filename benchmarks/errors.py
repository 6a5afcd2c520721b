"""The two things that can go wrong without being a fault of the program."""


class UsageError(Exception):
    """What was asked for cannot be done; shown as one line, exit code 2."""


class NoSuchCell(Exception):
    """The library has no cell for this op; its row says so."""
