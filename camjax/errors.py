"""The exception for what a user can correct."""


class InputError(ValueError):
    """An argument, an option or a file that the caller can correct.

    The message says what was given, what was expected, and what to do. A command prints it as one line, without a
    traceback; any other `ValueError` counts as a bug.
    """
