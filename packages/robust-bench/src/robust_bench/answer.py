"""How the logits of a model become its answer among the classes of a benchmark."""

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from robust_bench._checks import Model, ModelError
from robust_bench.metrics.entry_level import ENTRY_LEVEL_CLASSES


class Answer(Protocol):
    """A frozen dataclass that turns logits (N, K) into scores (N, C) of a benchmark's classes, differentiably.

    The softmax of the scores is the model's confidence.
    """

    @property
    def logits(self) -> int:
        """How many logits the model must return."""
        ...

    @property
    def text(self) -> str:
        """Say it in words, for the result."""
        ...

    def __call__(self, logits: Tensor, /) -> Tensor:
        """Turn logits into scores."""
        ...


@dataclass(frozen=True, kw_only=True)
class Subset:
    """Only some of the classes: the logits of the others are cut away before argmax and softmax.

    Hendrycks et al., "Natural Adversarial Examples", CVPR 2021, arXiv:1907.07174.

    Args:
        indices: the logit of every class of the benchmark, in the order of its labels.
        logits: how many logits the model must return.
    """

    indices: tuple[int, ...]
    logits: int = 1000

    @property
    def text(self) -> str:
        """Say it in words."""
        return f"among {len(self.indices)} of {self.logits} classes"

    def __call__(self, logits: Tensor, /) -> Tensor:
        """Cut the logits (N, K) to (N, C)."""
        return logits[:, torch.tensor(self.indices, device=logits.device)]


@dataclass(frozen=True, kw_only=True)
class Mapped:
    """Classes that are each made of several of the model's, decided by its largest logit over all classes.

    The last score belongs to none of them: a prediction outside the mapping is wrong, as on ObjectNet (Barbu et al.,
    NeurIPS 2019). No label is that last class.

    Args:
        indices: the model's classes of every class of the benchmark, in the order of its labels.
        logits: how many logits the model must return.
    """

    indices: tuple[tuple[int, ...], ...]
    logits: int = 1000

    @property
    def text(self) -> str:
        """Say it in words."""
        return f"among all {self.logits} classes, {sum(map(len, self.indices))} of which make {len(self.indices)}"

    def __call__(self, logits: Tensor, /) -> Tensor:
        """Take the largest logit (N, K) of every class, and of all others: (N, C + 1)."""
        taken = {index for group in self.indices for index in group}
        rest = tuple(index for index in range(logits.shape[1]) if index not in taken)
        groups = (*self.indices, *((rest,) if rest else ()))
        return torch.stack(
            [logits[:, torch.tensor(group, device=logits.device)].amax(dim=1) for group in groups], dim=1
        )


@dataclass(frozen=True, kw_only=True)
class EntryLevel:
    """The 16 entry-level classes that people know, each made of several of ImageNet's.

    Geirhos et al., NeurIPS 2021, arXiv:2106.07411 (the mean); ICLR 2019, arXiv:1811.12231 (the maximum); the same
    decisions as `robust_bench.metrics.decide`, in the alphabetical order of the classes.

    Args:
        aggregation: "mean", softmax over all logits and the mean probability of a class, or "max", the largest logit.
        logits: how many logits the model must return.
    """

    aggregation: Literal["mean", "max"] = "mean"
    logits: int = 1000

    @property
    def text(self) -> str:
        """Say it in words."""
        return f"among {len(ENTRY_LEVEL_CLASSES)} entry-level classes by the {self.aggregation}"

    def __call__(self, logits: Tensor, /) -> Tensor:
        """Turn logits (N, 1000) into log-probabilities or logits (N, 16)."""
        groups = [torch.tensor(sorted(group), device=logits.device) for group in ENTRY_LEVEL_CLASSES.values()]
        if self.aggregation == "max":
            return torch.stack([logits[:, group].amax(dim=1) for group in groups], dim=1)
        chances = logits.double().log_softmax(dim=1)
        sizes = torch.tensor([len(group) for group in groups], dtype=torch.float64, device=logits.device)
        sums = torch.stack([chances[:, group].logsumexp(dim=1) for group in groups], dim=1)
        return sums - sizes.log()


class _Answering(nn.Module):
    def __init__(self, model: nn.Module, answer: Answer) -> None:
        super().__init__()
        self.model = model
        self.answer = answer
        self.train(model.training)

    def forward(self, images: Tensor) -> Tensor:
        return _answer(self.model(images), self.answer)


def answering(model: Model, answer: Answer) -> Model:
    """Put the answer behind a model, so that what attacks it sees the benchmark's classes.

    Raises:
        ModelError: when called, if the model has another number of logits than the answer is made for.
    """
    if isinstance(model, nn.Module):
        return _Answering(model, answer)
    return lambda images: _answer(model(images), answer)


def _answer(logits: Tensor, answer: Answer) -> Tensor:
    if getattr(logits, "ndim", None) == 2:
        if logits.shape[1] != answer.logits:
            raise ModelError(
                f"this benchmark needs a model with {answer.logits} logits, one for each class of ImageNet in the "
                f"usual order, got {logits.shape[1]}"
            )
        return answer(logits)
    return logits  # refused where outputs are checked
