"""What can go wrong without being a fault of the program."""


class UsageError(Exception):
    """What was asked for cannot be done; shown as one line, exit code 2."""


class Unsupported(Exception):
    """The library has no such thing as a case asks for; its row says so."""
