"""What the metrics take for a column of per-image values, and how they refuse anything else."""

import numpy as np
import pytest
import torch
from robust_bench.metrics.adversarial import adversarial_robustness
from robust_bench.metrics.aurra import aurra
from robust_bench.metrics.calibration import (
    max_calibration_error,
    mean_absolute_calibration_error,
    rms_calibration_error,
)
from robust_bench.metrics.detection import auroc, average_precision, fpr_at_recall
from robust_bench.metrics.mcnemar import mcnemar
from robust_bench.metrics.shape_bias import shape_bias

CONFIDENCE = [0.5, 0.25, 0.75, 1.0, 0.0]
CORRECT = [True, False, False, True, True]
TWO_COLUMNS = [
    rms_calibration_error, mean_absolute_calibration_error, max_calibration_error, aurra, average_precision, auroc,
    fpr_at_recall,
]  # fmt: skip


@pytest.mark.parametrize("metric", TWO_COLUMNS)
@pytest.mark.parametrize(
    "confidence",
    [
        tuple(CONFIDENCE),
        np.array(CONFIDENCE),
        np.array(CONFIDENCE, dtype=np.float16),
        np.array(CONFIDENCE + CONFIDENCE)[::2][[0, 3, 1, 4, 2]],
        torch.tensor(CONFIDENCE),
        torch.tensor(CONFIDENCE, dtype=torch.bfloat16),
        torch.tensor(CONFIDENCE, requires_grad=True),
        torch.tensor([CONFIDENCE, CONFIDENCE]).T[:, 0],
        [torch.tensor(value) for value in CONFIDENCE],
    ],
    ids=["tuple", "float64", "float16", "view", "tensor", "bfloat16", "grad", "strided", "scalars"],
)
def test_every_kind_of_numbers_gives_the_same(metric, confidence):
    assert metric(confidence, CORRECT) == metric(CONFIDENCE, CORRECT)


@pytest.mark.parametrize("metric", TWO_COLUMNS)
@pytest.mark.parametrize(
    "correct",
    [
        np.array(CORRECT),
        np.array(CORRECT, dtype=object),
        torch.tensor(CORRECT),
        [1, 0, 0, 1, 1],
        torch.tensor([1, 0, 0, 1, 1]),
        torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0]),
        np.array([1, 0, 0, 1, 1], dtype=np.uint8),
    ],
    ids=["array", "object", "tensor", "integers", "int64", "float32", "uint8"],
)
def test_every_kind_of_truths_gives_the_same(metric, correct):
    assert metric(CONFIDENCE, correct) == metric(CONFIDENCE, CORRECT)


@pytest.mark.parametrize("metric", TWO_COLUMNS)
def test_the_result_is_a_plain_float_and_nothing_given_is_changed(metric):
    confidence, correct = torch.tensor(CONFIDENCE, dtype=torch.float64), torch.tensor(CORRECT)
    assert type(metric(confidence, correct)) is float
    assert confidence.tolist() == CONFIDENCE
    assert correct.tolist() == CORRECT


@pytest.mark.parametrize("metric", TWO_COLUMNS)
@pytest.mark.parametrize(
    ("confidence", "kind", "message"),
    [
        ([], ValueError, "is empty: give at least one image"),
        ([0.5, float("nan"), 0.5, 0.5, float("nan")], ValueError, "holds NaN, in 2 of 5 values"),
        (CORRECT, TypeError, "must be numbers, got bool: were two arguments swapped?"),
        (["a", "b", "c", "d", "e"], TypeError, "must be real numbers, got text"),
        ([0.5, 0.5, None, 0.5, 0.5], TypeError, "must be real numbers, got "),
        ([0.5j] * 5, TypeError, "must be real numbers, got complex128"),
        ([CONFIDENCE], ValueError, r"must have the shape \(N,\), one value per image, got \(1, 5\)"),
        (0.5, ValueError, r"must have the shape \(N,\), one value per image, got \(\)"),
        ([[0.5], [0.5, 0.5]], ValueError, "one flat sequence of values, got rows of different lengths"),
        ({0.5, 0.25}, TypeError, "must be a tensor, array or sequence, got set"),
        ("0.5", TypeError, "must be a tensor, array or sequence, got str"),
        (None, TypeError, "must be a tensor, array or sequence, got NoneType"),
    ],
)
def test_refuses_what_is_no_column_of_numbers(metric, confidence, kind, message):
    with pytest.raises(kind, match=rf"^(confidence|scores) .*{message}"):
        metric(confidence, CORRECT)


@pytest.mark.parametrize("metric", TWO_COLUMNS)
@pytest.mark.parametrize(
    ("correct", "kind", "message"),
    [
        ([], ValueError, "is empty: give at least one image"),
        ([3, 1, 0, 0, 1], ValueError, r"must be boolean \(or 0 and 1\), got 3: give one True or False per image"),
        ([0.5, 1, 0, 0, 1], ValueError, "got 0.5: give one True or False per image, e.g. predictions == labels"),
        ([1.0, float("nan"), 0.0, 0.0, 1.0], ValueError, "got nan"),
        ([True, None, True, True, True], TypeError, "must be boolean, got NoneType: give one True"),
        (["True"] * 5, TypeError, "must be boolean, got text: give one True"),
        ([CORRECT], ValueError, r"must have the shape \(N,\), one value per image, got \(1, 5\)"),
    ],
)
def test_refuses_what_is_no_column_of_truths(metric, correct, kind, message):
    with pytest.raises(kind, match=rf"^(correct|positive) .*{message}"):
        metric(CONFIDENCE, correct)


@pytest.mark.parametrize("metric", TWO_COLUMNS)
def test_columns_of_different_lengths_name_both(metric):
    with pytest.raises(ValueError, match=r"must have one entry per image each, got 5 of \w+, 4 of \w+"):
        metric(CONFIDENCE, CORRECT[:4])


@pytest.mark.parametrize("metric", TWO_COLUMNS[:4])
@pytest.mark.parametrize(
    ("value", "span"), [(1.5, r"\[0, 1.5\]"), (-0.25, r"\[-0.25, 1\]"), (87.0, r"\[0, 87\]"), (float("inf"), "inf")]
)
def test_a_confidence_is_a_fraction(metric, value, span):
    with pytest.raises(ValueError, match=rf"confidence must lie in \[0, 1\], got .*{span}.*: give the largest softmax"):
        metric([value, *CONFIDENCE[1:]], CORRECT)


@pytest.mark.parametrize("metric", [adversarial_robustness, mcnemar])
def test_pairs_of_truths_are_checked_alike(metric):
    with pytest.raises(ValueError, match="must be boolean"):
        metric(CORRECT, [7] * 5)
    with pytest.raises(ValueError, match=r"one entry per image each, got 5 of .*, 4 of "):
        metric(CORRECT, CORRECT[:4])


def test_classes_come_as_names_indices_arrays_or_tensors():
    decisions, shapes, textures = [0, 1, 2, 3], [0, 1, 5, 6], [4, 4, 2, 3]
    assert shape_bias(decisions, shapes, textures) == 0.5
    assert shape_bias(torch.tensor(decisions), np.array(shapes), textures) == 0.5
    assert shape_bias([torch.tensor(value) for value in decisions], torch.tensor(shapes), textures) == 0.5
    named = [[f"class{value}" for value in column] for column in (decisions, shapes, textures)]
    assert shape_bias(*named) == shape_bias(np.array(named[0]), tuple(named[1]), named[2]) == 0.5


@pytest.mark.parametrize(
    ("decisions", "kind", "message"),
    [
        ("cat", TypeError, "must be a sequence of class names or indices, got str"),
        (3, TypeError, "must be a sequence of class names or indices, got int"),
        ({"cat": 1}, TypeError, "must be a sequence of class names or indices, got dict"),
        ({"cat"}, TypeError, "must be a sequence of class names or indices, got set"),
        (iter(["cat"]), TypeError, "must be a sequence of class names or indices, got list_iterator"),
        ([], ValueError, "is empty: give at least one image"),
        (torch.zeros(1, 3), ValueError, r"must have the shape \(N,\), one class per image, got \(1, 3\)"),
        (["cat", float("nan"), "dog"], ValueError, "NaN at position 1: give None or 'na' where there is no answer"),
        (["cat"], ValueError, "decisions, shapes and textures must have one entry .*, got 1 of decisions, 3 of shapes"),
    ],
)
def test_refuses_what_is_no_column_of_classes(decisions, kind, message):
    with pytest.raises(kind, match=f"^decisions.*{message.removeprefix('decisions')}"):
        shape_bias(decisions, ["cat", "dog", "car"], ["dog", "car", "cat"])
