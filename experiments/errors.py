"""Exceptions that commands catch."""


class UserError(Exception):
    """What was wrong with the input, and what to do about it, in one line, without a traceback."""


class Interruption(Exception):  # noqa: N818 (asked for, not an error)
    """The run was asked to stop; it continues from its last checkpoint."""
