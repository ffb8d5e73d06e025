"""Which way a score is better."""

LOWER_IS_BETTER = frozenset(
    {
        "accuracy_difference",
        "flip_probability",
        "mean_flip_probability",
        "fpr_at_95_recall",
        "fpr_at_recall",
    }
)
_ENDINGS = (
    "error",
    "errors",
    "distance",
    "distances",
    "flip_rate",
    "flip_rates",
    "loss",
    "drop",
    "fall",
    "gap",
    "deviation",
)


def lower_is_better(metric: str) -> bool:
    """Tell whether a model with a lower value of a metric is the better one.

    Errors, distances, flip rates, losses, drops and deviations are, whoever defined the metric.

    Examples:
        >>> [lower_is_better(name) for name in ("mean_corruption_error", "fpr_at_95_recall", "accuracy", "shape_bias")]
        [True, True, False, False]
    """
    return metric in LOWER_IS_BETTER or metric.endswith(_ENDINGS)
