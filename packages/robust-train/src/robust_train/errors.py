"""What is wrong before a run can start, as opposed to an error inside of it."""


class SetupError(ValueError):
    """The settings, the data, the folder and the machine do not go together; the message says what to change."""
