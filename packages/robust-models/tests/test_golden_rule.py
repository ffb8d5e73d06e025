"""The rule that fills weights, checked against its published numbers and on a model of timm."""

import numpy as np
import pytest
import timm


def test_the_hash_gives_the_published_numbers(named):
    expected = [0.52218972093512861, 0.74553588924104253, 0.35090033204056004]
    np.testing.assert_allclose((named("1:input", 3) + 1) / 2, expected, rtol=0, atol=1e-15)


@pytest.mark.shared_data
@pytest.mark.slow
def test_a_model_of_timm_answers_as_stored(golden):
    golden("resnetblur50").check(timm.create_model("resnetblur50"))


@pytest.mark.parametrize("name", ["convnext_atto", "resnet18"])
def test_models_of_timm_follow_the_protocol(protocol, name):
    protocol(name, side=64).check()
