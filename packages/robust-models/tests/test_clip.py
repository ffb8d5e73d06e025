"""CLIP as a classifier: closed forms on towers small enough to compute by hand, without open_clip."""

import sys
from types import SimpleNamespace

import pytest
import timm
import torch
from robust_models.clip import (
    ClipClassifier,
    checkpoint_filter,
    interpolate_weights,
    timm_clip_classifier,
    zero_shot_classifier,
    zero_shot_weights,
)
from robust_models.create import create_model
from robust_models.normalize import get_normalization
from torch import nn

WORDS = {"a": 0, "photo": 1, "of": 2, "drawing": 3, "cat": 4, "dog": 5}


def tokenizer(texts):
    """One row of word counts per text."""
    counts = torch.zeros(len(texts), len(WORDS))
    for row, text in zip(counts, texts, strict=True):
        for word in text.replace(".", "").split():
            row[WORDS[word]] += 1
    return counts


class Twin(nn.Module):
    """What open_clip offers, with linear towers."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.text = nn.Parameter(torch.randn(4, len(WORDS), generator=generator))
        self.logit_scale = nn.Parameter(torch.tensor(100.0).log())
        self.visual = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
        self.visual.image_mean, self.visual.image_std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)

    def encode_text(self, counts):
        return counts @ self.text.T


def test_the_vector_of_a_class_is_the_mean_direction_of_its_texts():
    model, templates = Twin(), ("a photo of a {}.", "a drawing of a {}.")
    found = zero_shot_weights(model, tokenizer, ["cat", "dog"], templates)
    for vector, name in zip(found, ("cat", "dog"), strict=True):
        texts = [model.text.detach() @ tokenizer([template.format(name)])[0] for template in templates]
        mean = sum(text / text.norm() for text in texts)
        torch.testing.assert_close(vector, 100 * mean / mean.norm())
    assert not found.requires_grad
    torch.testing.assert_close(found.norm(dim=1), torch.full((2,), 100.0))


def test_logits_are_the_cosine_times_the_temperature():
    model = Twin()
    weights = zero_shot_weights(model, tokenizer, ["cat", "dog"])
    classifier = ClipClassifier(model.visual, 4, 2)
    classifier.classification_head.weight.data.copy_(weights)
    images = torch.rand(3, 3, 2, 2)
    embeddings = model.visual(images)
    cosine = torch.cosine_similarity(embeddings[:, None], weights[None], dim=-1)
    torch.testing.assert_close(classifier(images), 100 * cosine)
    brighter = ClipClassifier(nn.Sequential(model.visual, Scale(7.0)), 4, 2)
    brighter.classification_head.load_state_dict(classifier.classification_head.state_dict())
    torch.testing.assert_close(brighter(images), classifier(images))  # the length of an embedding does not count


class Scale(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return self.factor * x


def test_a_classifier_from_texts_normalises_images_as_open_clip_says(monkeypatch):
    model, asked = Twin(), []

    def create(name, pretrained=None):
        asked.append((name, pretrained))
        return model

    fake = SimpleNamespace(create_model=create, get_tokenizer=lambda name: tokenizer)
    monkeypatch.setitem(sys.modules, "open_clip", fake)
    classifier = zero_shot_classifier("tiny", ["cat", "dog"], pretrained="somewhere")
    assert asked == [("tiny", "somewhere")]
    assert not classifier.training
    assert get_normalization(classifier) == (
        pytest.approx(model.visual.image_mean),
        pytest.approx(model.visual.image_std),
    )
    images = torch.rand(2, 3, 2, 2)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (model.visual.image_mean, model.visual.image_std))
    directions = nn.functional.normalize(model.visual((images - mean) / std), dim=-1)
    torch.testing.assert_close(classifier(images), directions @ zero_shot_weights(model, tokenizer, ["cat", "dog"]).T)


def test_without_open_clip_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(ImportError, match=r"pip install 'robust-models\[clip\]'"):
        zero_shot_classifier("ViT-B-16", ["cat"])


@pytest.mark.parametrize(
    ("classes", "templates"), [([], ["a {}"]), (["cat"], []), (["cat"], ["a {}", "no place for the name"])]
)
def test_texts_that_cannot_be_made(classes, templates):
    with pytest.raises(ValueError, match=r"need classes and templates with \{\} for the name"):
        zero_shot_weights(Twin(), tokenizer, classes, templates)


def test_interpolation_is_a_straight_line_between_the_two():
    first = {"w": torch.tensor([1.0, 2.0]), "n": torch.tensor(3)}
    second = {"w": torch.tensor([5.0, 0.0]), "n": torch.tensor(8)}
    middle = interpolate_weights(first, second, 0.25)
    assert torch.equal(middle["w"], torch.tensor([2.0, 1.5]))
    assert middle["n"] == 8
    assert torch.equal(interpolate_weights(first, second, 0.0)["w"], first["w"])
    assert torch.equal(interpolate_weights(first, second, 1.0)["w"], second["w"])
    assert interpolate_weights(first, second, 1.0)["n"] is not second["n"]


def test_interpolation_of_linear_models_interpolates_their_answers():
    torch.manual_seed(0)
    first, second, between = nn.Linear(3, 2), nn.Linear(3, 2), nn.Linear(3, 2)
    between.load_state_dict(interpolate_weights(first.state_dict(), second.state_dict(), 0.3))
    x = torch.rand(4, 3)
    torch.testing.assert_close(between(x), 0.7 * first(x) + 0.3 * second(x))


@pytest.mark.parametrize(
    ("second", "alpha", "message"),
    [
        ({"w": torch.ones(2)}, 1.5, r"alpha must lie in \[0, 1\], got 1\.5"),
        ({"w": torch.ones(2)}, float("nan"), r"alpha must lie in"),
        ({"w": torch.ones(2), "x": torch.ones(1)}, 0.5, "different weights, x in one of them only"),
        ({"w": torch.ones(3)}, 0.5, r"w has the shape \[2\] in the zero-shot model and \[3\] in the fine-tuned one"),
    ],
)
def test_models_that_cannot_be_interpolated(second, alpha, message):
    with pytest.raises(ValueError, match=message):
        interpolate_weights({"w": torch.ones(2)}, second, alpha)


SMALL = {"embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 16, "img_size": 32}


def test_the_tower_of_openai_has_quick_gelu():
    classifier = timm_clip_classifier("vit_base_patch16_clip_224", 5, SMALL)
    quick = timm.create_model("vit_base_patch16_clip_quickgelu_224", **SMALL)
    assert type(classifier.visual.blocks[0].mlp.act) is type(quick.blocks[0].mlp.act)
    assert (classifier.num_features, classifier.num_classes) == (16, 5)
    with torch.device("meta"):
        whole = timm_clip_classifier("vit_base_patch16_clip_224", 1000)
    assert whole.classification_head.weight.shape == (1000, 512)
    assert sum(each.numel() for each in whole.visual.parameters()) == 86_192_640 + 512


def test_the_classifier_follows_timms_protocol():
    torch.manual_seed(0)
    classifier = timm_clip_classifier("vit_base_patch16_clip_224", 5, SMALL).eval()
    images = torch.rand(2, 3, 32, 32)
    features = classifier.forward_features(images)
    torch.testing.assert_close(classifier.forward_head(features), classifier(images))
    torch.testing.assert_close(classifier.forward_head(features, pre_logits=True).norm(dim=1), torch.ones(2))
    assert classifier.get_classifier() is classifier.classification_head
    compiled = torch.compile(classifier, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(images), classifier(images))


def test_the_projection_of_openai_is_transposed_and_has_no_bias():
    classifier = timm_clip_classifier("vit_base_patch16_clip_224", 5, SMALL)
    projection = torch.rand(32, 16)
    file = {
        "image_encoder.model.visual.class_embedding": torch.rand(32),
        "image_encoder.model.visual.proj": projection,
        "image_encoder.model.token_embedding.weight": torch.rand(7, 3),
        "classification_head.weight": torch.rand(5, 16),
        "classification_head.bias": torch.rand(5),
    }
    found = checkpoint_filter(file, classifier)
    assert torch.equal(found["visual.head.weight"], projection.T)
    assert torch.equal(found["visual.head.bias"], torch.zeros(16))
    assert found["visual.cls_token"].shape == (1, 1, 32)
    assert found["classification_head.weight"] is file["classification_head.weight"]
    assert set(found) <= set(classifier.state_dict())


def test_without_the_network_open_clip_is_not_asked_for_weights(monkeypatch, tmp_path):
    asked = []
    stub = SimpleNamespace(
        create_model=lambda _name, pretrained: asked.append(pretrained) or Twin(), get_tokenizer=lambda _name: tokenizer
    )
    monkeypatch.setitem(sys.modules, "open_clip", stub)
    monkeypatch.setenv("ROBUST_MODELS_OFFLINE", "1")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with pytest.raises(FileNotFoundError, match="open_clip may use it to get 'openai': give the path of a file, or"):
        zero_shot_classifier("any", ["cat", "dog"], pretrained="openai")
    assert asked == []
    file = tmp_path / "weights.pt"
    file.touch()
    zero_shot_classifier("any", ["cat", "dog"], pretrained=str(file))
    zero_shot_classifier("any", ["cat", "dog"])
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    zero_shot_classifier("any", ["cat", "dog"], pretrained="openai")
    assert asked == [str(file), None, "openai"]


def test_create_model_does_not_know_it_by_name():
    with pytest.raises(ValueError, match="no model is called"):
        create_model("clip_classifier")
