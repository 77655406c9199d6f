"""The error of a command that was typed wrongly."""


class UsageError(ValueError):
    """What a person typed cannot be carried out; the message says why."""
