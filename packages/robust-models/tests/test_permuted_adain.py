"""Permuted AdaIN: the stored case, the law of exchanged statistics, its draws, and the keys of the authors."""

import copy

import pytest
import torch
from robust_models.layers.permuted_adain import (
    PermutedAdaIN,
    convert_permuted_adain,
    permute_style,
    revert_permuted_adain,
)
from timm.models import checkpoint
from torch import nn


def stored(case):
    return torch.tensor(case["data"], dtype=torch.float64).view(case["shape"])


def maps(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.shared_data
def test_the_stored_numbers_and_their_gradient(golden, named):
    numbers = golden("modules").stored["cases"]
    case = numbers["permuted_adain"]
    shape = case["output"]["shape"]
    x = (2 * torch.from_numpy(named("1:x", 4 * 6 * 7 * 9)).view(shape) + 0.5).requires_grad_()
    found = permute_style(x, torch.tensor(case["perm"]), case["eps"])
    torch.testing.assert_close(found, stored(case["output"]), rtol=0, atol=1e-9)
    weights = torch.from_numpy(named("1:w", 4 * 6 * 7 * 9)).view(shape)
    (gradient,) = torch.autograd.grad((found * weights).sum(), x)
    torch.testing.assert_close(gradient, stored(case["grad"]), rtol=0, atol=1e-9)


@pytest.mark.parametrize("shape", [(5, 3, 8, 9), (5, 3, 40), (5, 3, 4, 5, 6)], ids=["2d", "1d", "3d"])
def test_every_image_gets_the_statistics_of_its_partner(shape):
    x, order = 3 * maps(*shape) + 2, torch.tensor([1, 2, 0, 4, 3])
    found = permute_style(x, order).flatten(2)
    torch.testing.assert_close(found.mean(2), x.flatten(2).mean(2)[order])
    torch.testing.assert_close(found.std(2), x.flatten(2).std(2)[order], rtol=1e-4, atol=0)
    torch.testing.assert_close(  # the content stays
        torch.nn.functional.instance_norm(found), torch.nn.functional.instance_norm(x.flatten(2)), rtol=0, atol=1e-4
    )


@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (4, 3, 1, 1), (4, 3)], ids=["one image", "one pixel", "no pixels"])
def test_nothing_to_exchange(shape):
    x = maps(*shape)
    assert PermutedAdaIN(p=1.0).train()(x) is x


def test_half_precision_is_computed_in_full():
    x = (maps(4, 3, 8, 8) + 100).bfloat16()
    order = torch.tensor([1, 2, 3, 0])
    expected = permute_style(x.double(), order).bfloat16()
    assert permute_style(x, order).dtype == torch.bfloat16
    torch.testing.assert_close(permute_style(x, order), expected, rtol=0.01, atol=0)


def test_a_call_exchanges_with_probability_p():
    layer = PermutedAdaIN(p=0.3, generator=torch.Generator().manual_seed(0)).train()
    x = maps(8, 2, 3, 3)
    changed = sum(layer(x) is not x for _ in range(2000))
    assert abs(changed - 600) < 5 * (2000 * 0.3 * 0.7) ** 0.5
    assert layer.eval()(x) is x


def test_the_generator_decides_everything():
    model = convert_permuted_adain(nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3)), p=0.5)
    generator = model[0].permuted_adain.generator
    assert model[1].permuted_adain.generator is generator
    x = maps(6, 3, 4, 4).float()

    def outputs():
        generator.manual_seed(7)
        state = torch.random.get_rng_state()
        found = [model(x) for _ in range(6)]
        assert torch.equal(torch.random.get_rng_state(), state)
        return torch.stack(found)

    assert torch.equal(outputs(), outputs())
    assert not torch.equal(outputs()[0], outputs()[1])


def test_torch_manual_seed_seeds_a_new_generator():
    seeds = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        seeds.append(PermutedAdaIN().generator.initial_seed())
    assert seeds[0] == seeds[1] != seeds[2]


def test_before_the_batch_norm_and_not_behind_it():
    model = convert_permuted_adain(nn.BatchNorm2d(3).double(), p=1.0, generator=torch.Generator().manual_seed(3))
    x = maps(5, 3, 6, 6)
    twin = torch.Generator().manual_seed(3)
    torch.rand((), generator=twin)
    expected = nn.BatchNorm2d(3).double()(permute_style(x, torch.randperm(5, generator=twin)))
    assert torch.equal(model(x), expected)


def test_gradient_checkpointing_repeats_the_draws_of_the_default_generator():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))
    convert_permuted_adain(model, p=0.5, generator=torch.default_generator)
    x = maps(6, 3, 8, 8).float()
    for seed in range(4):
        gradients = []
        for run in (model, lambda x: checkpoint(model, x, use_reentrant=False)):
            torch.manual_seed(seed)
            model.zero_grad()
            run(x).square().mul(torch.linspace(0, 1, 16).view(4, 4)).sum().backward()
            gradients.append([each.grad.clone() for each in model.parameters()])
        torch.testing.assert_close(*gradients)


def test_files_with_the_wrapper_of_the_authors_load():
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.BatchNorm2d(4)))
    state = copy.deepcopy(plain.state_dict())
    state["1.running_mean"] += 1
    published = {key.replace("1.", "1.bn.").replace("2.0.", "2.0.bn."): value for key, value in state.items()}
    assert "1.bn.running_mean" in published
    model = convert_permuted_adain(plain)
    model.load_state_dict(published)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in state.items())
    model.load_state_dict(state)
    with pytest.raises(RuntimeError, match=r"1\.bn\.running_mean"):
        revert_permuted_adain(model).load_state_dict(published)


@pytest.mark.parametrize("options", [{"p": -0.1}, {"p": 1.1}, {"eps": 0.0}, {"p": float("nan")}], ids=str)
def test_settings_out_of_range(options):
    with pytest.raises(ValueError, match=r"p in \[0, 1\] and a positive eps, got"):
        PermutedAdaIN(**options)
    model = nn.Sequential(nn.BatchNorm2d(3))
    with pytest.raises(ValueError, match=r"p in \[0, 1\]"):
        convert_permuted_adain(model, **options)
    assert [name for name, _ in model.named_modules()] == ["", "0"]
