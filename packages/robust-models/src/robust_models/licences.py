"""The licence of weights: said once, and accepted where it restricts."""

import logging
from functools import cache

from robust_models.cache import is_set
from robust_models.entry import Entry

logger = logging.getLogger(__name__)


def check_licence(entry: Entry, accepted: bool) -> None:
    """Log the licence of `entry`, once per process.

    Args:
        entry: the weights.
        accepted: whether the caller accepts a restricted licence; `ROBUST_MODELS_ACCEPT_LICENSE=1` accepts all.

    Raises:
        PermissionError: if the licence forbids commercial use and was not accepted.
    """
    if entry.restricted and not accepted and not is_set("ROBUST_MODELS_ACCEPT_LICENSE"):
        raise PermissionError(
            f"the weights {entry.name} are under {entry.license}, which restricts commercial use: "
            "pass accept_license=True (--accept-license), or set ROBUST_MODELS_ACCEPT_LICENSE=1, if you accept that"
        )
    _say(entry.name, entry.license or "unknown: ask their authors before you pass them on")


@cache
def _say(name: str, licence: str) -> None:
    logger.info("licence of the weights %s: %s", name, licence)
