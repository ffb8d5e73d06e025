"""Warnings of an evaluation are shown and kept."""

import warnings

import pytest
import torch
from robust_bench import EvaluationWarning, evaluate
from robust_bench.listening import listening
from torch.utils.data import TensorDataset


def test_warnings_are_shown_and_kept_once():
    with warnings.catch_warnings(record=True) as shown, listening() as told:
        warnings.simplefilter("always")
        for number in (1, 2, 2):
            warnings.warn(f"number {number}", EvaluationWarning, stacklevel=1)
        warnings.warn("something else", UserWarning, stacklevel=1)
    assert told == ["number 1", "number 2"]
    assert [str(each.message) for each in shown] == ["number 1", "number 2", "number 2", "something else"]


def test_as_errors_they_stay_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(EvaluationWarning), listening() as told:
            warnings.warn("stop", EvaluationWarning, stacklevel=1)
    assert told == []


def test_the_result_has_them():
    data = TensorDataset(torch.rand(4, 3, 8, 8), torch.zeros(4, dtype=torch.int64))
    with pytest.warns(EvaluationWarning, match="probabilities"):
        result = evaluate(lambda images: images.mean(dim=(2, 3)).softmax(dim=1), data)
    assert len(result.settings["warnings"]) == 1
    assert "without the softmax" in result.settings["warnings"][0]
