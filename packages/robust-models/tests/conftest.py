"""Published architectures by their numbers: every weight filled by a rule, and what they then answer."""

import copy
import fnmatch
import json
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from numpy.typing import NDArray
from timm.models import group_parameters
from torch import Tensor, nn

PLACES = [folder / "shared" / "data" / "golden" for folder in Path(__file__).resolve().parents]


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


def uniform(name: str, count: int) -> NDArray[np.float64]:
    """Numbers in [-1, 1) that belong to a name: SplitMix64 from the FNV-1a hash of the name."""
    base = 0xCBF29CE484222325
    for byte in name.encode():
        base = ((base ^ byte) * 0x100000001B3) % 2**64
    with np.errstate(over="ignore"):
        z = np.uint64(base) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    found: NDArray[np.float64] = 2.0 * ((z >> np.uint64(11)) * 2.0**-53) - 1.0
    return found


def tensor_of(key: str, shape: tuple[int, ...], seed: int) -> Tensor:
    """What the rule puts into the entry `key` of a state dict, float32."""
    values, leaf = uniform(f"{seed}:{key}", math.prod(shape)), key.rpartition(".")[2]
    if leaf == "num_batches_tracked":
        values = 0 * values
    elif leaf == "running_mean":
        values = 0.1 * values
    elif leaf == "running_var":
        values = 1 + 0.5 * values
    elif leaf in ("att_mask", "complex_weight"):
        values = 2 * values
    elif leaf in ("pos_embed", "cls_token") or key.endswith("embedding.weight"):
        pass
    elif leaf == "temperature":
        values = 1 + 0.5 * values
    elif len(shape) >= 2:
        values = values * math.sqrt(3 / math.prod(shape[1:]))
    elif leaf == "bias":
        values = 0.1 * values
    else:
        values = 1 + 0.2 * values
    return torch.from_numpy(values.reshape(shape).astype(np.float32))


def filled(model: nn.Module, seed: int) -> nn.Module:
    """The model, in eval mode, with every entry of its state dict filled by the rule."""
    entries = model.state_dict().items()
    model.load_state_dict({key: tensor_of(key, tuple(entry.shape), seed).to(entry.dtype) for key, entry in entries})
    return model.eval()


@dataclass(frozen=True)
class Golden:
    """The stored numbers of one published architecture.

    Use: `golden("rvt_tiny").check(timm.create_model("rvt_tiny"))`.
    """

    stored: dict[str, Any]

    @property
    def images(self) -> Tensor:
        """The input, float64."""
        shape = self.stored["input_shape"]
        return torch.from_numpy(uniform(f"{self.stored['seed']}:input", math.prod(shape)).reshape(shape))

    def fill(self, model: nn.Module) -> nn.Module:
        """The model in eval mode with the weights of the rule."""
        return filled(model, self.stored["seed"])

    def check(self, model: nn.Module, *, tolerance: float = 1e-6, train: bool = True) -> None:
        """Compare everything: keys and their order, logits in both precisions, gradient, taps, a training pass.

        Args:
            model: the architecture, without normalisation and with all dropout rates 0; it is changed.
            tolerance: of float64 logits, in units of their root mean square.
            train: also compare the training pass, where one is stored.
        """
        self.check_keys(model)
        self.fill(model)
        scale = self.stored["logit_rms"]
        logits = torch.tensor(self.stored["logits"], dtype=torch.float64)
        with torch.no_grad():
            narrow = model(self.images.float())
        assert (narrow.double() - logits).abs().max() <= 5e-5 * scale
        model.double()
        images = self.images.requires_grad_()
        taps = dict(self._tapped(model, images))
        found = taps.pop("")
        assert (found - logits).abs().max() <= tolerance * scale
        for name, tap in taps.items():
            self._check_tensor(tap, self.stored["taps"][name], 10 * tolerance, name)
        sum(row[(7 * index + 3) % len(row)] for index, row in enumerate(found)).backward()
        assert images.grad is not None
        self._check_tensor(images.grad, self.stored["input_grad"], 100 * tolerance, "input gradient")
        if train and "train_logits" in self.stored:
            self._check_training(model, tolerance)

    def check_keys(self, model: nn.Module) -> None:
        """Compare names, shapes and order of the state dict, and the number of parameters."""
        parameters = dict(model.named_parameters())
        kinds = {key: "param" if key in parameters else "buffer" for key in model.state_dict()}
        entries = [[key, list(entry.shape), kinds[key]] for key, entry in model.state_dict().items()]
        assert entries == self.stored["state_dict"]
        assert sum(each.numel() for each in parameters.values()) == self.stored["parameters"]

    def _check_training(self, model: nn.Module, tolerance: float) -> None:
        with torch.no_grad():
            found = model.train()(self.images)
        expected = torch.tensor(self.stored["train_logits"], dtype=torch.float64)
        assert (found - expected).abs().max() <= tolerance * self.stored["train_logit_rms"]
        state = model.state_dict()
        for key, first in self.stored.get("bn_after_train", {}).items():
            torch.testing.assert_close(
                state[key].flatten()[: len(first)], torch.tensor(first).double(), rtol=1e-6, atol=1e-9
            )
        model.eval()

    def _tapped(self, model: nn.Module, images: Tensor) -> dict[str, Tensor]:
        """Outputs of the modules that are stored, and under "" of the whole."""
        taps: dict[str, Tensor] = {}

        def keep(name: str) -> Callable[..., None]:
            def hook(_module: nn.Module, _arguments: object, output: Any) -> None:
                taps[name] = (output[0] if isinstance(output, tuple) else output).detach()

            return hook

        handles = [model.get_submodule(name).register_forward_hook(keep(name)) for name in self.stored.get("taps", {})]
        logits = model(images)
        for handle in handles:
            handle.remove()
        assert taps.keys() == self.stored.get("taps", {}).keys()
        return {**taps, "": logits}

    @staticmethod
    def _check_tensor(found: Tensor, stored: dict[str, Any], tolerance: float, name: str) -> None:
        assert list(found.shape) == stored["shape"], name
        found, rms = found.double(), stored["rms"]
        ends = torch.cat([found[0].flatten()[:4], found[-1].flatten()[-4:]])
        expected = torch.tensor([*stored["first"], *stored["last"]], dtype=torch.float64)
        assert (ends - expected).abs().max() <= tolerance * max(rms, expected.abs().max().item()), name
        assert abs(found.mean().item() - stored["mean"]) <= tolerance * rms + 1e-11, name
        assert abs(found.square().mean().sqrt().item() - rms) <= tolerance * rms + 1e-11, name


def stored_golden(name: str) -> Golden:
    """The numbers of an architecture, or of "modules"; skips the test where they are not."""
    path = next((place / f"{name}.json" for place in PLACES if place.is_dir()), None)
    if path is None:
        pytest.skip("the golden numbers are not there: ../shared/data/golden beside the repository")
    return Golden(json.loads(path.read_text()))


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Golden]:
    return stored_golden


@pytest.fixture(scope="session")
def named() -> Callable[[str, int], NDArray[np.float64]]:
    """`named("1:x", 8)`: the eight numbers in [-1, 1) of a name."""
    return uniform


@pytest.fixture(scope="session")
def by_rule() -> Callable[[nn.Module, int], nn.Module]:
    """`by_rule(model, seed)`: the model in eval mode with every weight filled by the rule."""
    return filled


class Protocol:
    """What users of timm expect of any of its models, on a small version of one.

    Use: `protocol("rvt_tiny", img_size=64)`; each method is one expectation, `protocol(...).check()` is all of them.
    """

    def __init__(self, name: str, side: int | None = None, **options: Any) -> None:
        self.name, self.options = name, options
        config = timm.create_model(name, **options).default_cfg
        self.side = side or options.get("img_size") or config["input_size"][-1]

    def build(self, **options: Any) -> Any:
        torch.manual_seed(0)
        return timm.create_model(self.name, **{"num_classes": 7, **self.options, **options})

    def images(self, count: int = 2, channels: int = 3) -> Tensor:
        return torch.rand(count, channels, self.side, self.side, generator=torch.Generator().manual_seed(1))

    def check(self) -> None:
        self.builds_the_same_under_one_seed()
        self.answers_in_any_shape()
        self.gives_features_and_heads()
        self.gives_intermediates()
        self.trains()
        self.saves_memory_on_request()
        self.tells_groups_of_parameters()
        self.can_be_exported()

    def builds_the_same_under_one_seed(self) -> None:
        first, second = self.build(), self.build()
        assert all(torch.equal(one, other) for one, other in zip(first.parameters(), second.parameters(), strict=True))
        assert all(torch.isfinite(each).all() for each in first.state_dict().values())
        config = first.pretrained_cfg
        assert len(config["mean"]) == len(config["std"]) == config["input_size"][0]
        assert config["crop_pct"] > 0
        for layer in (config["first_conv"], config["classifier"]):
            assert any(isinstance(first.get_submodule(layer), kind) for kind in (nn.Conv2d, nn.Linear))

    def answers_in_any_shape(self) -> None:
        model = self.build().eval()
        images = self.images()
        logits = model(images)
        assert logits.shape == (2, 7)
        assert torch.isfinite(logits).all()
        torch.testing.assert_close(model(images[:1]), logits[:1], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(copy.deepcopy(model)(images), logits)
        channels_last = model.to(memory_format=torch.channels_last)(images.to(memory_format=torch.channels_last))
        torch.testing.assert_close(channels_last, logits, rtol=1e-3, atol=1e-4)
        assert self.build(in_chans=4).eval()(self.images(channels=4)).shape == (2, 7)
        assert torch.isfinite(self.build(drop_rate=0.1, drop_path_rate=0.1).train()(images)).all()

    def gives_features_and_heads(self) -> None:
        model, images = self.build().eval(), self.images()
        features = model.forward_features(images)
        torch.testing.assert_close(model.forward_head(features), model(images))
        pooled = model.forward_head(features, pre_logits=True)
        assert pooled.shape == (2, model.head_hidden_size)
        assert self.build(num_classes=0).eval()(images).shape == (2, model.num_features)
        assert model.num_classes == 7
        assert isinstance(model.get_classifier(), nn.Linear)
        model.reset_classifier(3)
        assert model.num_classes == 3
        assert model.eval()(images).shape == (2, 3)
        model.reset_classifier(0)
        torch.testing.assert_close(model.eval()(images), pooled)

    def gives_intermediates(self) -> None:
        model, images = self.build().eval(), self.images()
        output, maps = model.forward_intermediates(images)
        torch.testing.assert_close(output, model.forward_features(images))
        assert all(each.ndim == 4 for each in maps)
        ends = sorted({0, len(maps) - 1})
        some = model.forward_intermediates(images, indices=ends, intermediates_only=True)
        torch.testing.assert_close(some, [maps[index] for index in ends])
        (early,) = model.forward_intermediates(images, indices=[0], intermediates_only=True, stop_early=True)
        torch.testing.assert_close(early, maps[0])
        features = timm.create_model(self.name, features_only=True, **self.options).eval()
        found = features(images)
        channels, reductions = features.feature_info.channels(), features.feature_info.reduction()
        assert [each.shape[1] for each in found] == channels
        assert [each.shape[-1] for each in found] == [-(-self.side // reduction) for reduction in reductions]

    def trains(self) -> None:
        model = self.build().train()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = nn.functional.cross_entropy(model(self.images()).float(), torch.tensor([0, 1]))
        loss.backward()
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
        before = [each.detach().clone() for each in model.parameters()]
        torch.optim.SGD(model.parameters(), lr=0.1).step()
        assert any(not torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True))

    def saves_memory_on_request(self) -> None:
        model = self.build().eval()  # without dropout and batch statistics, so that both passes are the same
        gradients = []
        for enable in (False, True):
            model.set_grad_checkpointing(enable)
            model.zero_grad()
            model(self.images()).sum().backward()
            gradients.append([each.grad.clone() for each in model.parameters() if each.requires_grad])
        torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)

    def tells_groups_of_parameters(self) -> None:
        model = self.build()
        names = {name for name, _ in model.named_parameters()}
        patterns = getattr(model, "no_weight_decay", set)()  # timm's name some that not every variant has
        assert not patterns or any(fnmatch.fnmatchcase(name, pattern) for name in names for pattern in patterns)
        for coarse in (False, True):
            groups = group_parameters(model, model.group_matcher(coarse=coarse))
            assert {name for group in groups.values() for name in group} == names
            assert len(groups) > 2

    def can_be_exported(self) -> None:
        model, images = self.build().eval(), self.images()
        with torch.no_grad():
            logits = model(images)
            torch.testing.assert_close(torch.export.export(model, (images,)).module()(images), logits)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch.jit is deprecated, timm's users still have it
                torch.testing.assert_close(torch.jit.trace(model, images)(images), logits)
            compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
            torch.testing.assert_close(compiled(images), logits)


@pytest.fixture(scope="session")
def protocol() -> type[Protocol]:
    return Protocol
