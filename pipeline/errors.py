"""What ends a run and is no bug."""


class InputError(Exception):
    """What the user gave cannot be used: a file, a folder, a configuration, a run in use.

    The message is one line that says what is wrong, where, and what to do about it, and never holds a patient's data.
    The command line prints it and ends with exit code 2; any other exception is a bug and ends with 1.
    """


class Stopped(Exception):
    """The process was asked to end (SIGTERM) and has left its work so that the next run goes on from there; exit code 143."""
