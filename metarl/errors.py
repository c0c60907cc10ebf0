"""What can go wrong for a user."""


class UserError(Exception):
    """A mistake in what the user gave: one line that says what was given, what is allowed, what to do.

    The command line prints it and exits with code 2.
    """
