"""The call of an attack that works through the pool."""

import warnings
from typing import Protocol

from torch import Tensor

from robust_attacks._checks import Model, check_call, check_labels, check_result
from robust_attacks._ledger import Ledger
from robust_attacks._passes import Passes
from robust_attacks._pool import Given, Search, hunt
from robust_attacks._purity import pristine
from robust_attacks._verify import Judge, brought_inside, full_precision
from robust_attacks.losses import Loss, succeeded
from robust_attacks.random import ImageRandom
from robust_attacks.threats import Threat


class Pooled(Protocol):
    """An attack that can share a batch with others of its kind, image by image."""

    @property
    def threat(self) -> Threat:
        """What the attacker may change."""
        ...

    @property
    def eot(self) -> int:
        """Draws of a randomised model per evaluation."""
        ...

    @property
    def rule(self) -> Loss:
        """The loss whose rule of success counts, see `losses.succeeded`."""
        ...

    def search(self, classes: int, seed: int) -> Search:
        """The runs of an image, for a model with so many classes and one seed."""
        ...


def run(attack: Pooled, model: Model, images: Tensor, labels: Tensor, random: ImageRandom | None) -> Tensor:
    """Attack a batch in one go: for each image a confirmed win, else the best point of its runs.

    Images that are won already, as misclassified ones, come back unchanged.

    Raises:
        TypeError: if images, labels, `random` or logits are of a wrong type.
        ValueError: if their shapes or values are wrong.

    Warns:
        RuntimeWarning: if logits of images were not finite.
    """
    random = check_call(attack.threat, images, labels, random)
    if not len(images):
        return images.detach().clone()
    with pristine(model, images, random.seed) as model, full_precision(images.device):
        images, labels = images.detach(), labels.clone()
        passes = Passes(model, attack.eot)
        logits = passes.logits(images.clone())  # a model that writes into its input is found out on a copy
        check_labels(labels, images, classes=logits.shape[1])
        finite = logits.isfinite().all(dim=1)
        search = attack.search(logits.shape[1], random.seed)
        ledger = Ledger.of(images.clone(), search.runs, keep_best=True)
        given = Given(images, labels, logits, random, attack.threat, images.device)
        rows = (~succeeded(attack.rule, logits, labels)).nonzero()[:, 0].cpu()
        hunt(search, passes, Judge(passes, attack.rule), given, ledger, rows, batch_size=len(images))
        broken = int((~ledger.finite | ~finite.cpu()).sum())
        if broken:
            warnings.warn(
                f"logits of {broken} of {len(images)} images were not finite, so these images were hardly attacked: "
                "look for overflow, 0 / 0, log(0) or sqrt(0) in the model",
                RuntimeWarning,
                stacklevel=3,
            )
        return check_result(attack.threat, images, brought_inside(attack.threat, images, ledger.adversarial))
