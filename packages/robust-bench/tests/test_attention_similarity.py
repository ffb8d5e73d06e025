"""Attention of clean and occluded images."""

import pytest
import timm
import torch
from robust_attacks import ImageRandom
from robust_bench import EvaluationWarning, evaluate
from robust_bench.conditions.attention_similarity import LAYERS, SIMILARITY, AttentionSimilarity
from robust_bench.conditions.occluded import Occluded
from robust_models import NormalizedModel
from robust_models.attention import attention_maps
from torch.utils.data import TensorDataset

SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 5}


@pytest.fixture(scope="module")
def vit():
    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", **SMALL).eval()


@pytest.fixture(scope="module")
def data():
    random = torch.Generator().manual_seed(1)
    return TensorDataset(torch.rand(9, 3, 32, 32, generator=random), torch.randint(5, (9,), generator=random))


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_is_the_mean_cosine_over_layers_and_heads(vit, data, batch_size):
    """Image after image, in plain loops."""
    condition = AttentionSimilarity(patch_size=8, share=0.25)
    images, labels = data.tensors
    ids = torch.arange(9) + 100
    similarity, predictions = [], []
    for rows in torch.arange(9).split(batch_size):
        found = condition.measure(vit, images[rows], labels[rows], ImageRandom(3, ids[rows]))
        similarity += found.more[SIMILARITY].tolist()
        predictions += found.predictions.tolist()
        assert found.more[LAYERS].tolist() == [2] * len(rows)
        assert torch.equal(found.right, found.predictions == labels[rows])
    occluded = Occluded(patch_size=8, share=0.25).change(vit, images, labels, ImageRandom(3, ids))
    with torch.no_grad():
        for image in range(9):
            clean = attention_maps(vit, images[image : image + 1])
            changed = attention_maps(vit, occluded[image : image + 1])
            cosines = [
                torch.cosine_similarity(one.flatten().double(), other.flatten().double(), dim=0)
                for layer in clean.maps
                for one, other in zip(clean.maps[layer][0], changed.maps[layer][0], strict=True)
            ]
            assert len(cosines) == 6
            assert similarity[image] == pytest.approx(float(torch.stack(cosines).mean()), rel=1e-5)
            assert predictions[image] == int(changed.logits.argmax())
    assert all(0 < value < 1 for value in similarity)


def test_layers_that_are_left_out_are_named(data):
    torch.manual_seed(0)
    model = timm.create_model("xcit_nano_12_p16_224", **{**SMALL, "num_heads": 4}).eval()
    images, labels = data.tensors
    with pytest.warns(EvaluationWarning, match=r"leaves layers out \(blocks\.0\.attn: attention between channels; "):
        found = AttentionSimilarity(patch_size=8).measure(model, images, labels, ImageRandom(0, torch.arange(9)))
    assert found.more[LAYERS].tolist() == [2] * 9


def test_the_engine_evaluates_it(vit, data, tmp_path):
    condition = AttentionSimilarity(patch_size=8)
    model = NormalizedModel(vit, [0.5] * 3, [0.5] * 3)
    row = evaluate(model, data, conditions=(condition,), out=tmp_path, shard_size=4).rows[0]
    assert row.condition == "10 % of patches of 8 px occluded, one mask"
    assert (row.settings["kind"], row.count) == ("attention", 9)


def test_models_without_attention_are_refused(model, grey):
    images, labels = grey.tensors
    random = ImageRandom(0, torch.arange(21))
    with pytest.raises(ValueError, match="shows no attention between tokens"):
        AttentionSimilarity(patch_size=2).measure(model, images, labels, random)
    with pytest.raises(TypeError, match="got function: evaluate the model itself"):
        AttentionSimilarity(patch_size=2).measure(lambda images: images, images, labels, random)
    with pytest.raises(ValueError, match="share"):
        AttentionSimilarity(share=2.0)
