"""Scores of per-image records, as pure functions. Rates are fractions: 0.457, not 45.7."""

from robust_bench.metrics.adversarial import AttackEffectiveness as AttackEffectiveness
from robust_bench.metrics.adversarial import adversarial_robustness as adversarial_robustness
from robust_bench.metrics.adversarial import attack_effectiveness as attack_effectiveness
from robust_bench.metrics.adversarial import robust_accuracy as robust_accuracy
from robust_bench.metrics.adversarial import robust_counts as robust_counts
from robust_bench.metrics.adversarial import worst_case_adversarial_robustness as worst_case_adversarial_robustness
from robust_bench.metrics.alexnet import ALEXNET_CLEAN_ERROR as ALEXNET_CLEAN_ERROR
from robust_bench.metrics.alexnet import ALEXNET_ERRORS as ALEXNET_ERRORS
from robust_bench.metrics.alexnet import ALEXNET_FLIP_PROBABILITIES as ALEXNET_FLIP_PROBABILITIES
from robust_bench.metrics.aurra import aurra as aurra
from robust_bench.metrics.bootstrap import BootstrapInterval as BootstrapInterval
from robust_bench.metrics.bootstrap import bootstrap as bootstrap
from robust_bench.metrics.bootstrap import bootstrap_means as bootstrap_means
from robust_bench.metrics.calibration import max_calibration_error as max_calibration_error
from robust_bench.metrics.calibration import mean_absolute_calibration_error as mean_absolute_calibration_error
from robust_bench.metrics.calibration import rms_calibration_error as rms_calibration_error
from robust_bench.metrics.consistency import accuracy_difference as accuracy_difference
from robust_bench.metrics.consistency import error_consistency as error_consistency
from robust_bench.metrics.consistency import expected_consistency as expected_consistency
from robust_bench.metrics.consistency import observed_consistency as observed_consistency
from robust_bench.metrics.corruption_error import corruption_errors as corruption_errors
from robust_bench.metrics.corruption_error import mean_corruption_error as mean_corruption_error
from robust_bench.metrics.corruption_error import (
    mean_corruption_error_without_noise as mean_corruption_error_without_noise,
)
from robust_bench.metrics.corruption_error import mean_error as mean_error
from robust_bench.metrics.corruption_error import relative_corruption_errors as relative_corruption_errors
from robust_bench.metrics.corruption_error import relative_mean_corruption_error as relative_mean_corruption_error
from robust_bench.metrics.decoders import DecoderScore as DecoderScore
from robust_bench.metrics.decoders import decoder_score as decoder_score
from robust_bench.metrics.detection import anomaly_score as anomaly_score
from robust_bench.metrics.detection import auroc as auroc
from robust_bench.metrics.detection import average_precision as average_precision
from robust_bench.metrics.detection import fpr_at_recall as fpr_at_recall
from robust_bench.metrics.entry_level import ENTRY_LEVEL_CLASSES as ENTRY_LEVEL_CLASSES
from robust_bench.metrics.entry_level import decide as decide
from robust_bench.metrics.flips import flip_probability as flip_probability
from robust_bench.metrics.flips import flip_rates as flip_rates
from robust_bench.metrics.flips import mean_flip_rate as mean_flip_rate
from robust_bench.metrics.flips import sequence_flips as sequence_flips
from robust_bench.metrics.holm import holm as holm
from robust_bench.metrics.human_sets import LEFT_OUT_CONDITIONS as LEFT_OUT_CONDITIONS
from robust_bench.metrics.human_sets import kept_conditions as kept_conditions
from robust_bench.metrics.human_sets import mean_over_human_pairs as mean_over_human_pairs
from robust_bench.metrics.human_sets import mean_over_humans as mean_over_humans
from robust_bench.metrics.human_sets import ood_accuracy as ood_accuracy
from robust_bench.metrics.intervals import clopper_pearson as clopper_pearson
from robust_bench.metrics.mcnemar import McNemar as McNemar
from robust_bench.metrics.mcnemar import mcnemar as mcnemar
from robust_bench.metrics.shape_bias import cue_share as cue_share
from robust_bench.metrics.shape_bias import human_shape_bias as human_shape_bias
from robust_bench.metrics.shape_bias import shape_bias as shape_bias
from robust_bench.metrics.top5 import mean_top5_distance as mean_top5_distance
from robust_bench.metrics.top5 import sequence_top5_distances as sequence_top5_distances
from robust_bench.metrics.top5 import sequence_zipf_distances as sequence_zipf_distances
from robust_bench.metrics.top5 import top5_classes as top5_classes
from robust_bench.metrics.top5 import top5_distance as top5_distance
from robust_bench.metrics.top5 import zipf_distance as zipf_distance

__all__ = [
    "ALEXNET_CLEAN_ERROR",
    "ALEXNET_ERRORS",
    "ALEXNET_FLIP_PROBABILITIES",
    "ENTRY_LEVEL_CLASSES",
    "LEFT_OUT_CONDITIONS",
    "AttackEffectiveness",
    "BootstrapInterval",
    "DecoderScore",
    "McNemar",
    "accuracy_difference",
    "adversarial_robustness",
    "anomaly_score",
    "attack_effectiveness",
    "auroc",
    "aurra",
    "average_precision",
    "bootstrap",
    "bootstrap_means",
    "clopper_pearson",
    "corruption_errors",
    "cue_share",
    "decide",
    "decoder_score",
    "error_consistency",
    "expected_consistency",
    "flip_probability",
    "flip_rates",
    "fpr_at_recall",
    "holm",
    "human_shape_bias",
    "kept_conditions",
    "max_calibration_error",
    "mcnemar",
    "mean_absolute_calibration_error",
    "mean_corruption_error",
    "mean_corruption_error_without_noise",
    "mean_error",
    "mean_flip_rate",
    "mean_over_human_pairs",
    "mean_over_humans",
    "mean_top5_distance",
    "observed_consistency",
    "ood_accuracy",
    "relative_corruption_errors",
    "relative_mean_corruption_error",
    "rms_calibration_error",
    "robust_accuracy",
    "robust_counts",
    "sequence_flips",
    "sequence_top5_distances",
    "sequence_zipf_distances",
    "shape_bias",
    "top5_classes",
    "top5_distance",
    "worst_case_adversarial_robustness",
    "zipf_distance",
]
