"""The error of a command's user, as against that of its author."""


class InputError(Exception):
    """Something the user can mend: shown as one line, with exit code 2."""
