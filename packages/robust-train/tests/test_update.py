"""One update: the passes over the parts of a batch, and the step of whatever optimizer."""

import pytest
import torch
from robust_optim import AWP, ESAM, SAM, LookSAM
from robust_train.objectives import Standard
from robust_train.update import Losses, Passes
from torch import nn


def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def batch(count=7):
    random = torch.Generator().manual_seed(1)
    images = torch.rand(count, 3, 2, 2, generator=random, dtype=torch.float64)
    return images, torch.randint(3, (count,), generator=random)


def update(wrap=lambda base, _: base, parts=1, clip=None, scaler=None, steps=2):
    model = network()
    module = Losses(model, Standard())
    optimizer = wrap(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), module)
    images, labels = batch()
    cut = [(x, x, y) for x, y in zip(images.chunk(parts), labels.chunk(parts), strict=True)]
    for _ in range(steps):
        passes = Passes(
            module=module,
            optimizer=optimizer,
            scaler=scaler or torch.amp.GradScaler("cpu", enabled=False),
            precision=None,
            parts=cut,
            images=len(images),
        )
        passes.step(clip)
    return torch.cat([p.detach().flatten() for p in model.parameters()]), passes.metrics


def plain(clip=None):
    model = network()
    images, labels = batch()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(2):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
    return torch.cat([p.detach().flatten() for p in model.parameters()]), loss.detach()


@pytest.mark.parametrize("clip", [None, 0.01])
@pytest.mark.parametrize("parts", [1, 2, 3, 7])
def test_parts_of_a_batch_add_up_to_the_update_of_the_whole(parts, clip):
    expected, loss = plain(clip)
    weights, metrics = update(parts=parts, clip=clip)  # seven images do not split evenly
    torch.testing.assert_close(weights, expected, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(metrics["loss"] / 7, loss, rtol=1e-12, atol=0)


@pytest.mark.parametrize("scale", [2.0, 2.0**10])
def test_a_loss_scale_changes_nothing(scale):
    scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=1000)
    torch.testing.assert_close(update(scaler=scaler, clip=0.01)[0], plain(0.01)[0], rtol=1e-12, atol=1e-14)


WRAPPERS = {
    "SAM": lambda base, module: SAM(base, rho=0.3, model=module),
    "LookSAM": lambda base, module: LookSAM(base, rho=0.3, k=2, model=module),
    "AWP": lambda base, module: AWP(base, gamma=0.1, model=module),
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_optimizers_with_two_passes_take_the_same_parts_in_both(name):
    whole, metrics = update(WRAPPERS[name])
    in_parts, again = update(WRAPPERS[name], parts=3)
    torch.testing.assert_close(in_parts, whole, rtol=1e-11, atol=1e-13)
    assert not torch.allclose(whole, plain()[0], rtol=1e-4)
    torch.testing.assert_close(again["loss"], metrics["loss"], rtol=1e-11, atol=0)


def test_the_metrics_are_those_of_the_first_pass():
    _, metrics = update(WRAPPERS["SAM"], steps=1)
    images, labels = batch()
    torch.testing.assert_close(
        metrics["loss"] / 7, nn.functional.cross_entropy(network()(images), labels).detach(), rtol=1e-12, atol=0
    )


def test_esam_with_everything_is_sam():
    everything = update(lambda base, module: ESAM(base, rho=0.3, beta=1, gamma=1, model=module))[0]
    torch.testing.assert_close(everything, update(WRAPPERS["SAM"])[0], rtol=1e-12, atol=1e-14)


def test_esam_chooses_among_the_images():
    chosen = update(lambda base, module: ESAM(base, rho=0.3, beta=1, gamma=0.4, model=module))[0]
    assert not torch.allclose(chosen, update(WRAPPERS["SAM"])[0], rtol=1e-4)


def test_the_objective_is_no_part_of_the_module():
    """Else a wrapper for several processes, and clipping, would take an objective's own weights for the model's."""

    class Learned(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

    module = Losses(network(), Learned())
    assert {name.split(".")[0] for name, _ in module.named_parameters()} == {"model"}
