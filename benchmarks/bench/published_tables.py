"""The published table of two ResNeXt-101, anew from their raw errors and flip probabilities.

Raw numbers and published scores lie in shared/data/metrics beside the repository; clean accuracies are known to a tenth
of a point, which moves the relative mCE by up to a tenth.

    nox -s bench -- bench/published_tables --out benchmarks/results/published_tables.md
"""

import json
from pathlib import Path

from _pages import arguments, made_with, prose, publish, table, versions
from robust_bench.metrics import (
    corruption_errors,
    flip_rates,
    mean_corruption_error,
    mean_flip_rate,
    relative_mean_corruption_error,
)

FILE = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "metrics" / "resnext_wsl_tables.json"


def scores(model: dict[str, dict[str, float]]) -> dict[str, tuple[float, float]]:
    """Each score of a model in per cent, ours and the published one."""
    published = model["published"]
    errors = {name: error / 100.0 for name, error in model["imagenet_c_err_pct"].items()}
    clean = 1.0 - published["clean_top1"] / 100.0
    return {
        "mCE": (100.0 * mean_corruption_error(errors), published["mCE"]),
        "relative mCE": (100.0 * relative_mean_corruption_error(errors, clean), published["rel_mCE"]),
        "mFR": (100.0 * mean_flip_rate(model["imagenet_p_fp"]), published["mFR"]),
    }


def main() -> None:
    """Print the tables."""
    given = arguments(__doc__)
    models = json.loads(FILE.read_text(encoding="utf-8"))["models"]
    found = {name: scores(model) for name, model in models.items()}
    summary = [
        [name, *(f"{ours:.2f} ({published})" for ours, published in mine.values())] for name, mine in found.items()
    ]
    errors = {
        name: corruption_errors({key: value / 100.0 for key, value in model["imagenet_c_err_pct"].items()})
        for name, model in models.items()
    }
    rates = {name: flip_rates(model["imagenet_p_fp"]) for name, model in models.items()}
    lines = [
        "# Published tables, from raw errors",
        "",
        *prose("In brackets what was published. AlexNet has 100 in every column; lower is better."),
        "",
        *table(["model", *next(iter(found.values()))], summary),
        "",
        *table(["corruption error (CE)", *models], [
            [name, *(f"{100.0 * errors[model][name]:.1f}" for model in models)] for name in next(iter(errors.values()))
        ]),
        "",
        *table(["flip rate", *models], [
            [name, *(f"{100.0 * rates[model][name]:.1f}" for model in models)] for name in next(iter(rates.values()))
        ]),
        "",
        made_with("robust-bench"),
    ]  # fmt: skip
    publish(lines, {"versions": versions("robust-bench"), "models": found}, given.out)


if __name__ == "__main__":
    main()
