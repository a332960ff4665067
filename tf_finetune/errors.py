"""The one exception for mistakes a user can mend."""


class UserError(Exception):
    """Bad input: a flag, a file, a row, an encoder.

    The message says what is wrong, where, the value found, the valid choices and the remedy.
    The command line prints it without a traceback and exits with status 2.
    """
