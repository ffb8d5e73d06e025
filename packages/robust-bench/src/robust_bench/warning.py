"""The category of our warnings about evaluations."""


class EvaluationWarning(UserWarning):
    """Something about the model or the data makes the numbers doubtful; the message says what, and how to mend it."""
