"""The one exception that is shown to the user as a line instead of a traceback."""


class UserError(Exception):
    """What was wrong with the input, and what to do about it, in one line."""
