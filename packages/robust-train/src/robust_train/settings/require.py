"""How settings refuse what makes no sense."""


def require(true: bool, message: str) -> None:
    """Raise a ValueError with `message`, which begins with the setting's name, unless `true`."""
    if not true:
        raise ValueError(message)


def require_not_negative(settings: object, *names: str) -> None:
    """Raise a ValueError unless the named settings are at least 0."""
    for setting in names:
        number = getattr(settings, setting)
        require(number >= 0, f"{setting} must not be negative, got {number}")
