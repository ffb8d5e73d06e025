"""A call changes nothing that it was given."""

import copy
import warnings

import pytest
import torch
from robust_attacks import FGSM, L1, L2, MIFGSM, NFGSM, PGD, ImageRandom, Linf, cross_entropy
from torch import nn

ATTACKS = {
    "FGSM": FGSM(threat=Linf(eps=0.1)),
    "FGSM-RS": FGSM(threat=Linf(eps=0.1), random_start=True),
    "N-FGSM": NFGSM(threat=Linf(eps=0.1)),
    "MI-FGSM": MIFGSM(threat=Linf(eps=0.1), steps=3),
    "PGD": PGD(threat=Linf(eps=0.1), steps=3),
    "PGD-L2": PGD(threat=L2(eps=0.5), steps=3, restarts=2),
    "PGD-L1": PGD(threat=L1(eps=2), steps=3),
}
each_attack = pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())


class Network(nn.Module):
    """Batch norm and dropout, so that training mode changes buffers and draws random numbers."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(4 * 16, 3)
        )
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("nothing", None)
        self.register_buffer("hidden", torch.ones(2), persistent=False)
        self.layers[3].register_buffer("shared", self.hidden)
        self.fail_at = None

    def forward(self, images):
        self.calls += 1
        self.hidden *= 2
        assert self.layers[3].shared is self.hidden
        if self.fail_at is not None and int(self.calls) >= self.fail_at:
            self.eval()
            self.register_buffer("calls", torch.full((), 77))
            self.register_buffer("hidden", torch.zeros(2))
            self.layers[0].register_buffer("new", torch.zeros(2))
            self.layers[0].weight.requires_grad_(False)
            self.layers[0].weight.grad = torch.ones_like(self.layers[0].weight)
            raise ArithmeticError("half-way")
        return self.layers(images)


@pytest.fixture
def network():
    torch.manual_seed(0)
    network = Network()
    network.layers[3].eval()
    network.layers[0].bias.requires_grad_(False)
    for number, parameter in enumerate(network.parameters()):
        if number % 2:
            parameter.grad = torch.randn_like(parameter)
    return network


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    return torch.rand((5, 1, 6, 6), generator=generator), torch.tensor([0, 1, 2, 0, 1])


def state(network):
    """Everything that must not change: bits by value, tensors also by identity."""
    return {
        "modes": [module.training for module in network.modules()],
        "requires_grad": [parameter.requires_grad for parameter in network.parameters()],
        "parameters": [(id(p), p.tolist()) for p in network.parameters()],
        "gradients": [None if p.grad is None else (id(p.grad), p.grad.tolist()) for p in network.parameters()],
        "buffers": [(n, id(b), b._version, b.tolist()) for n, b in network.named_buffers(remove_duplicate=False)],
        "kept buffers": list(network.state_dict()),
        "hooks": [(len(m._forward_hooks), len(m._backward_hooks)) for m in network.modules()],
        "random": torch.get_rng_state().tolist(),
        "grad mode": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "default dtype": torch.get_default_dtype(),
    }


@each_attack
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_model_images_and_random_states_stay(attack, training, network, batch):
    network.train(training)
    images, labels = batch
    before, given = state(network), (images.clone(), labels.clone())
    found = attack(network, images, labels, random=ImageRandom(0))
    assert state(network) == before
    assert torch.equal(images, given[0])
    assert torch.equal(labels, given[1])
    assert not images.requires_grad
    assert images.grad is None
    assert not found.requires_grad
    assert found.grad_fn is None
    assert found.data_ptr() != images.data_ptr()
    assert not torch.equal(found, images)


@each_attack
def test_the_buffers_of_batch_norm_would_have_changed(attack, network, batch):
    """Without this the test above could pass for a model that has nothing to restore."""
    before = network.layers[1].running_mean.clone()
    network(batch[0])
    assert not torch.equal(network.layers[1].running_mean, before)
    assert int(network.layers[1].num_batches_tracked) == 1


@each_attack
@pytest.mark.parametrize("fail_at", [1, 2])
def test_everything_is_put_back_after_an_exception(attack, fail_at, network, batch):
    if isinstance(attack, FGSM | NFGSM) and fail_at > 1:
        fail_at = 1
    network.fail_at = fail_at
    before = state(network)
    with pytest.raises(ArithmeticError, match="half-way"):
        attack(network, *batch, random=ImageRandom(0))
    assert state(network) == before


@each_attack
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_it_works_in_every_grad_mode(attack, mode, network, batch):
    expected = attack(network, *batch, random=ImageRandom(0))
    with mode():
        before = state(network)
        images, labels = batch[0] * 1, batch[1] * 1  # made here: inference tensors in inference mode
        found = attack(network, images, labels, random=ImageRandom(0))
        assert state(network) == before
    assert torch.equal(found, expected)


@each_attack
def test_a_model_in_training_mode_gives_the_same_twice(attack, network, batch):
    """Dropout draws from torch's generators: they are seeded from `random` and put back."""
    network.train()
    found = []
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        found.append(attack(network, *batch, random=ImageRandom(3)))
    assert torch.equal(*found)
    with torch.random.fork_rng():
        outputs = [network(batch[0]) for _ in range(2)]
    assert not torch.equal(*outputs)  # so the model is random indeed


def test_the_mode_is_the_callers_choice(network, batch):
    seen = []
    network.register_forward_pre_hook(lambda module, _: seen.append(module.training))
    for training in (True, False):
        network.train(training)
        FGSM(threat=Linf(eps=0.1))(network, *batch)
    assert seen == [True, False]


@each_attack
def test_without_random_one_seed_is_drawn_and_nothing_else(attack, network, batch):
    torch.manual_seed(5)
    found = attack(network, *batch)
    after = torch.get_rng_state()
    torch.manual_seed(5)
    random = ImageRandom.fresh(len(batch[0]))
    assert torch.equal(after, torch.get_rng_state())
    assert torch.equal(found, attack(network, *batch, random=random))


def test_a_model_that_calls_backward_itself_leaves_no_gradient(network, batch):
    class Nosy(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network

        def forward(self, images):
            self.inner(images).sum().backward(retain_graph=True)
            return self.inner(images)

    nosy = Nosy()
    before = state(nosy)
    PGD(threat=Linf(eps=0.1), steps=2)(nosy, *batch, random=ImageRandom(0))
    assert state(nosy) == before


def test_a_bound_method_is_guarded_as_its_module(network, batch):
    network.train()
    before = state(network)
    FGSM(threat=Linf(eps=0.1))(network.forward, *batch, random=ImageRandom(0))
    assert state(network) == before


@each_attack
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_an_autograd_graph_from_before_the_call_survives_it(attack, training, batch):
    """Batch norm keeps its buffers for the backward pass: they must not be written to, not even the same values."""
    torch.manual_seed(0)
    images, labels = batch
    model = nn.Sequential(nn.BatchNorm2d(1), nn.Conv2d(1, 3, 6), nn.Flatten()).train(training)
    clean = cross_entropy(model(images), labels)
    adversarial = attack(model, images, labels, random=ImageRandom(0))
    (clean + cross_entropy(model(adversarial), labels)).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_a_model_made_in_inference_mode_is_met_with_advice(batch):
    with torch.inference_mode():
        model = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(36, 3))
    attack = FGSM(threat=Linf(eps=0.1))
    with pytest.raises(RuntimeError, match=r"made under torch.inference_mode.*attack copy.deepcopy\(model\)"):
        attack(model, *batch)
    assert not torch.equal(attack(copy.deepcopy(model), *batch), batch[0])


def test_buffers_made_in_inference_mode_are_guarded_too(network, batch):
    with torch.inference_mode():
        network.layers[1].running_mean = torch.zeros(4)
    network.train()
    before = network.layers[1].running_mean
    FGSM(threat=Linf(eps=0.1))(network, *batch)
    assert network.layers[1].running_mean is before
    assert before.tolist() == [0.0] * 4


def test_a_traced_model_is_guarded_too(batch):
    model = nn.Sequential(nn.BatchNorm2d(1), nn.Conv2d(1, 3, 6), nn.Flatten())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated
        traced = torch.jit.trace(model, batch[0])
    before = {name: buffer.clone() for name, buffer in traced.named_buffers()}
    found = FGSM(threat=Linf(eps=0.1))(traced, *batch)
    assert not torch.equal(found, batch[0])
    assert len(before) == 3
    assert all(torch.equal(buffer, before[name]) for name, buffer in traced.named_buffers())


def test_hooks_on_gradients_do_not_fire(network, batch):
    fired = []
    for parameter in network.parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(lambda p: fired.append(p))
    PGD(threat=Linf(eps=0.1), steps=2)(network, *batch, random=ImageRandom(0))
    assert not fired


@each_attack
def test_the_memory_layout_is_that_of_the_images(attack, network, batch):
    wide = torch.rand((5, 3, 6, 6), generator=torch.Generator().manual_seed(1))
    network.layers[0] = nn.Conv2d(3, 4, 3)
    for images in (wide, wide.contiguous(memory_format=torch.channels_last)):
        assert attack(network, images, batch[1]).stride() == images.stride()


@pytest.mark.gpu
@each_attack
def test_the_random_state_of_the_gpu_stays(attack, network, batch):
    network.cuda().train()
    network.layers[3].register_buffer("shared", network.hidden)  # Module.cuda() copies it once for each owner
    images, labels = (tensor.cuda() for tensor in batch)
    torch.cuda.manual_seed(1)
    before = torch.cuda.get_rng_state(), state(network)
    first = attack(network, images, labels, random=ImageRandom(0))
    assert torch.equal(torch.cuda.get_rng_state(), before[0])
    assert state(network) == before[1]
    torch.cuda.manual_seed(2)
    assert torch.equal(attack(network, images, labels, random=ImageRandom(0)), first)
