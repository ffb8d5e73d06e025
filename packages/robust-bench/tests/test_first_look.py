"""Classic mistakes, each found on the first batch."""

import functools
import warnings

import pytest
import timm
import torch
from robust_bench import EvaluationWarning, evaluate
from robust_bench._checks import ModelError
from robust_bench.answer import Subset
from robust_bench.benchmarks import Benchmark, Part
from robust_models import Normalize, create_model
from torch import nn
from torch.utils.data import TensorDataset

CLASSES = 3


class Network(nn.Module):
    """Convolution, batch norm, dropout of a kind, pooling and a classifier."""

    def __init__(self, drop=0.0, *, always=False, normalise=True):
        super().__init__()
        self.convolution = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8) if normalise else nn.Identity()
        self.drop = nn.Dropout(drop)
        self.classify = nn.Linear(8, CLASSES)
        self.always = always

    def forward(self, images):
        found = self.drop(self.norm(self.convolution(images)).relu().mean(dim=(2, 3)))
        if self.always:
            found = nn.functional.dropout(found, 0.5, training=True)
        return self.classify(found)


@pytest.fixture
def data():
    torch.manual_seed(0)
    return TensorDataset(torch.rand(24, 3, 8, 8), torch.arange(24) % CLASSES)


def quiet(model, data):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return evaluate(model, data, batch_size=12)


@pytest.mark.parametrize("wrap", [lambda model: model, lambda model: lambda images: model(images)])
def test_a_sound_model_is_let_pass(data, wrap):
    quiet(wrap(Network(0.5).eval()), data)


def test_a_module_in_training_mode_is_put_into_eval_mode(data):
    model = Network(0.5).train()
    quiet(model, data)
    assert model.training


@pytest.mark.parametrize(
    "hide",
    [
        lambda model: lambda images: model(images),
        lambda model: functools.partial(model.forward),
        lambda model: model.forward,
        lambda model: functools.partial(lambda network, images: network(images), model),
    ],
)
def test_a_hidden_module_in_training_mode_is_an_error(data, hide):
    with pytest.raises(ModelError, match=r"Network, which the model calls, is in training mode.*\.eval\(\)"):
        evaluate(hide(Network(0.5).train()), data)


def test_a_hidden_module_comes_back_as_it_was(data):
    model = Network().train()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}

    def predict(images):
        return model(images)

    with pytest.raises(ModelError, match="in training mode"):
        evaluate(lambda images: predict(images), data)
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())


def test_a_function_may_set_its_module_to_eval_mode_by_itself(data):
    model = Network(0.5).train()
    quiet(lambda images: model.eval()(images), data)


def test_probabilities_are_found_behind_an_answer(data):
    benchmark = Benchmark(
        name="two", parts=(Part(name="two", data=data, num_classes=3, answer=Subset(indices=(0, 1, 2), logits=4)),)
    )
    with pytest.warns(EvaluationWarning, match="are probabilities"):
        evaluate(nn.Sequential(Network(), nn.Linear(CLASSES, 4), nn.Softmax(dim=1)), benchmark)


def test_dropout_that_is_always_on_is_warned_of(data):
    with pytest.warns(EvaluationWarning, match="answers differently when it is asked twice"):
        evaluate(Network(always=True), data)


def test_an_answer_that_depends_on_the_batch_is_warned_of(data):
    def centred(images):
        return (images - images.mean(dim=0)).mean(dim=(2, 3))

    with pytest.warns(EvaluationWarning, match="depends on the other images in the batch"):
        evaluate(centred, data)


def test_a_backbone_without_classifier_is_an_error(data):
    bare = create_model("resnet18", num_classes=0)
    benchmark = Benchmark(name="ten", parts=(Part(name="ten", data=data, num_classes=10),))
    with pytest.raises(ModelError, match=r"backbone that returns 512 features.*num_classes=10"):
        evaluate(bare, benchmark)
    with pytest.raises(ModelError, match="backbone that returns 512 features"):
        evaluate(nn.Sequential(bare), data)
    feature_maps = nn.Conv2d(3, 8, 3)
    with pytest.raises(ValueError, match="needs its classifier"):
        evaluate(feature_maps, data)


def test_a_timm_model_without_its_normalisation_is_warned_of(data):
    bare = timm.create_model("resnet18", num_classes=CLASSES)
    with pytest.warns(EvaluationWarning, match="without its normalisation step"):
        evaluate(bare, data)
    quiet(nn.Sequential(Normalize(mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2)), bare), data)
    quiet(create_model("resnet18", num_classes=CLASSES), data)


def test_images_divided_twice_are_warned_of(data):
    images, labels = data.tensors
    with pytest.warns(EvaluationWarning, match="divided by 255 twice"):
        evaluate(Network(), TensorDataset(images / 255.0, labels))


def test_images_outside_of_the_unit_range_are_an_error(data):
    images, labels = data.tensors
    with pytest.raises(ValueError, match="put the mean/std step inside the model"):
        evaluate(Network(), TensorDataset((images - 0.5) / 0.2, labels))


def test_fewer_logits_than_labels_are_an_error(data):
    with pytest.raises(ValueError, match="model returns 2 logits"):
        evaluate(nn.Sequential(Network(), nn.Linear(CLASSES, 2)), data)
