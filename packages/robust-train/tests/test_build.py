"""Model and optimizer from a recipe."""

import copy

import pytest
import torch
from robust_models import create_model, get_normalization, save_weights
from robust_train.build import build_model, build_optimizer, check_model


def test_the_model_has_the_settings_and_the_normalisation(tiny):
    model = build_model(
        tiny.replace(
            **{
                "model.name": "vit_tiny_patch16_224",
                "model.img_size": 32,
                "model.drop_rate": 0.1,
                "model.drop_path_rate": 0.2,
            }
        )
    )
    assert get_normalization(model) is not None
    assert model.unwrap().patch_embed.img_size == (32, 32)
    assert model.unwrap().head_drop.p == 0.1
    assert model.unwrap().blocks[-1].drop_path1.drop_prob > 0.19
    assert model.num_classes == 10


def test_training_can_start_from_a_file(tiny, tmp_path):
    torch.manual_seed(5)
    start = create_model("small_cnn_8")
    save_weights(start, tmp_path / "start.safetensors")
    model = build_model(tiny.replace(**{"model.weights": str(tmp_path / "start.safetensors")}))
    assert torch.equal(model.model.conv1.weight, start.model.conv1.weight)


def test_the_optimizer_has_every_setting(tiny):
    model = build_model(tiny)
    adam = build_optimizer(tiny.replace(**{"optimizer.betas": [0.8, 0.99], "optimizer.weight_decay": 0.1}), model)
    assert isinstance(adam, torch.optim.AdamW)
    assert {(group["lr"], group["weight_decay"], tuple(group["betas"])) for group in adam.param_groups} == {
        (0.002, 0.1, (0.8, 0.99))
    }
    sgd = build_optimizer(
        tiny.replace(
            **{
                "optimizer.name": "momentum",
                "optimizer.momentum": 0.8,
                "optimizer.betas": None,
                "optimizer.decay_all": False,
            }
        ),
        model,
    )
    assert {group["momentum"] for group in sgd.param_groups} == {0.8}
    assert not any(group["nesterov"] for group in sgd.param_groups)
    decays = {group["weight_decay"]: {parameter.ndim for parameter in group["params"]} for group in sgd.param_groups}
    assert decays == {0.0: {1}, 0.0005: {2, 4}}
    layers = build_optimizer(tiny.replace(**{"optimizer.layer_decay": 0.5}), model)
    assert len({group["lr_scale"] for group in layers.param_groups}) == 4


@pytest.mark.parametrize("name", ["fusedadam", "bnbadam"])
@pytest.mark.skipif(torch.cuda.is_available(), reason="these optimizers work on a GPU")
def test_an_optimizer_that_cannot_be_used_here_is_refused(name, tiny):
    with pytest.raises(
        ValueError, match=rf"optimizer\.name '{name}' cannot be used here: CUDA required.*adamw and sgd"
    ):
        build_optimizer(tiny.replace(**{"optimizer.name": name}), build_model(tiny))


def test_a_model_for_another_image_size_is_refused(tiny):
    recipe = tiny.replace(**{"model.name": "test_vit", "model.img_size": None})
    message = (
        r"test_vit does not take images of 1 x 8 x 8 with model\.img_size None: set model\.img_size to 8, or choose"
    )
    with pytest.raises(ValueError, match=message):
        check_model(recipe, build_model(recipe), (1, 8, 8), 2)


def test_the_check_leaves_the_model_alone_and_refuses_a_single_image_only_with_batch_norm(tiny):
    recipe = tiny.replace(**{"model.name": "test_efficientnet", "model.img_size": None})
    model = build_model(recipe)
    before = copy.deepcopy(model.state_dict())
    check_model(recipe, model, (1, 8, 8), 2)
    with pytest.raises(ValueError, match=r"the last batch of an epoch is a single image.*set data\.drop_last to true"):
        check_model(recipe, model, (1, 8, 8), 1)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    check_model(tiny, build_model(tiny), (1, 8, 8), 1)
