"""The one exception that a user can cause and repair."""


class UserError(Exception):
    """Something the user can mend; the message is one line that says what is wrong and what to do."""
