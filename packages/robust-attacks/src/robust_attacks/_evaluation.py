"""The run of a worst case over a set of images: stages, accounts, and what is kept for a resume."""

import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from os import PathLike
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from robust_attacks import sanity as signs
from robust_attacks._accelerated import Accelerate, FewSizes
from robust_attacks._checkpoint import Checkpoint
from robust_attacks._checks import Model, check_call, check_labels
from robust_attacks._fingerprint import describe, digest, digest_model
from robust_attacks._ledger import Ledger
from robust_attacks._passes import Passes
from robust_attacks._pool import Given, hunt
from robust_attacks._purity import pristine
from robust_attacks._verify import Judge, exact_arithmetic, full_precision
from robust_attacks.losses import cross_entropy, dlr, margin, predicted, succeeded
from robust_attacks.random import ImageRandom
from robust_attacks.report import Flag, Progress, Report, Stage

if TYPE_CHECKING:
    from robust_attacks.worst_case import WorstCase

_SECONDS_BETWEEN_SAVES = 60.0
_SECONDS_BETWEEN_REPORTS = 0.2
_FRESH_DRAWS = 20


def evaluate(
    worst_case: "WorstCase",
    model: Model,
    images: Tensor,
    labels: Tensor,
    random: ImageRandom,
    batch_size: int,
    *,
    sanity: bool,
    checkpoint: str | PathLike[str] | None = None,
    progress: Callable[[Progress], None] | None = None,
    accelerate: Accelerate | None = None,
) -> Report:
    """See `WorstCase.run`."""
    assert worst_case.threat is not None
    random = check_call(worst_case.threat, images, labels, random)
    flags = signs.training_mode(model) if sanity else []
    fingerprint = {
        "suite": describe(worst_case),
        "seed": str(random.seed),
        "model": digest_model(model) if checkpoint else "",
    }
    if checkpoint:
        assert random.ids is not None
        fingerprint |= {"images": digest(images), "labels": digest(labels), "ids": digest(random.ids)}
    device = _device(model, images)
    with pristine(model, images, random.seed) as lent, full_precision(device):
        run = _Run(worst_case, lent, images.detach(), labels, random, device, batch_size, progress, accelerate)
        if checkpoint:
            run.resume(Checkpoint(checkpoint, fingerprint))
        if sanity:
            flags += run.sanity()
        run.stages()
        if sanity:
            flags += signs.after(run.parts)
        return run.report(flags)


class _Run:
    """One evaluation; everything that decides its result is in the arguments."""

    def __init__(
        self,
        worst_case: "WorstCase",
        model: Model,
        images: Tensor,
        labels: Tensor,
        random: ImageRandom,
        device: torch.device,
        batch_size: int,
        progress: Callable[[Progress], None] | None,
        accelerate: Accelerate | None,
    ) -> None:
        assert worst_case.threat is not None
        self._suite = worst_case
        self._attacks = list(worst_case.stages.items())
        self._model = model
        self._fast = None if accelerate is None else FewSizes(accelerate(model), batch_size)
        self._batch_size = batch_size
        self._progress = progress
        self._checkpoint: Checkpoint | None = None
        self._interrupted: dict[str, Any] | None = None
        self._saved = self._told = time.monotonic()
        self._eot = max(getattr(attack, "eot", 1) for _, attack in self._attacks)
        logits = self._clean_logits(images, device)
        classes = logits.shape[1]
        check_labels(labels, images, classes=classes)
        self._given = Given(images, labels, logits, random, worst_case.threat, device)
        self.finite = logits.isfinite().all(dim=1).cpu()
        self.clean = (predicted(logits) == labels).cpu() & self.finite
        self.standing = self.clean.clone()
        self.breaker = torch.full((len(images),), -1, device="cpu")
        self.adversarial = images.clone()
        self.parts: list[Stage] = []
        self.notes = [note for name, attack in self._attacks for note in _fitted(name, attack, classes)[1]]
        if accelerate is not None:
            self.notes.append(f"the searches saw the model through {describe(accelerate)}; every verdict is its own")
        if self._eot > 1:
            self.notes.append("the model's own randomness belongs to the batch: no result is promised per image")

    def _clean_logits(self, images: Tensor, device: torch.device) -> Tensor:
        passes = Passes(self._model, self._eot)
        with exact_arithmetic():
            # A model that writes into its input is found out on a copy.
            parts = [passes.logits(some.to(device, copy=True)) for some in _chunks(images, self._batch_size)]
        return torch.cat(parts).to(images.device) if parts else images.new_zeros(0, 2)

    def resume(self, checkpoint: Checkpoint) -> None:
        """Take over what the checkpoint knows, and keep it up to date from now on."""
        self._checkpoint = checkpoint
        known = checkpoint.load()
        if known is None:
            return
        if self._eot == 1 and not torch.equal(known["clean"], self.clean):
            raise ValueError(
                f"{checkpoint.path} belongs to another run (model: it gets other images right): "
                "name another file, or delete it to begin anew"
            )
        self.clean, self.standing, self.finite = known["clean"], known["standing"], known["finite"]
        self.breaker = known["breaker"]
        self.adversarial = known["adversarial"].to(self.adversarial.device)
        self.parts = [Stage(**part) for part in known["parts"]]
        self._interrupted = known["stage"]

    def sanity(self) -> list[Flag]:
        """What the clean images tell."""
        rows = self.clean.nonzero()[:, 0].to(self._given.images.device)
        images, labels = self._given.images[rows], self._given.labels[rows]
        return signs.before(self._model, images, labels, self._given.device, self._batch_size, self._eot > 1)

    def stages(self) -> None:
        """Every attack that is not over yet, in order."""
        for number in range(len(self.parts), len(self._attacks)):
            name, attack = self._attacks[number]
            self._stage(name, _fitted(name, attack, self._given.logits.shape[1])[0])

    def _stage(self, name: str, attack: Any) -> None:
        passes = Passes(self._model, getattr(attack, "eot", 1), self._fast)
        judge = Judge(passes, cross_entropy)
        search = attack.search(self._given.logits.shape[1], self._given.random.seed) if _is_pooled(attack) else None
        ledger = Ledger.of(self.adversarial, search.runs if search else 1, keep_best=False)
        before = self._restore(ledger, passes)
        start = time.perf_counter()
        rows = self.standing.nonzero()[:, 0]
        given = replace(self._given, threat=attack.threat, allowed=self._given.threat) if search else self._given

        def save() -> None:
            self._save(ledger, passes, before + time.perf_counter() - start)

        def tell() -> None:
            if time.monotonic() - self._told > _SECONDS_BETWEEN_REPORTS:
                self._tell(name, ledger, rows)
            if time.monotonic() - self._saved > _SECONDS_BETWEEN_SAVES:
                save()

        try:
            if search:
                hunt(search, passes, judge, given, ledger, rows, self._batch_size, tell)
            else:
                self._call(attack, passes, judge, ledger, rows, tell)
        except BaseException:
            save()
            raise
        self._tell(name, ledger, rows)
        self.breaker[ledger.won & self.standing] = len(self.parts)
        self.standing &= ~ledger.won
        self.finite &= ledger.finite
        seconds = before + time.perf_counter() - start
        robust = self.standing & self.finite
        settings = describe(attack)
        self.parts.append(
            Stage(name, settings, robust.clone(), passes.forwards, passes.backwards, seconds, ledger.flips)
        )
        self._save(None, passes, 0.0)

    def _call(
        self, attack: Any, passes: Passes, judge: Judge, ledger: Ledger, rows: Tensor, tell: Callable[[], None]
    ) -> None:
        """An attack that takes a batch and hands one back."""
        counted = passes.counted()
        for some in _chunks(rows[~ledger.finished[rows, 0]], self._batch_size):
            jobs = self._given.jobs(some)
            # Copies: what an attack writes into its images must not move the place that distances are measured from.
            points = _of_some(attack, some)(counted, jobs.images.clone(), jobs.labels.clone(), random=jobs.random)
            if not isinstance(points, Tensor) or points.shape != jobs.images.shape:
                shape = tuple(points.shape) if isinstance(points, Tensor) else type(points).__name__
                raise ValueError(f"{attack!r} turned images {tuple(jobs.images.shape)} into {shape}")
            points = points.detach().to(jobs.images)  # what is judged is what is kept
            points, confirmed = judge.confirm(jobs.threat, jobs.images, points, jobs.labels)
            points = points.to(ledger.adversarial.device)
            if passes.finite is not None:
                ledger.finite[some] &= passes.finite.cpu()
            for row, point, sure in zip(some.tolist(), points, confirmed.tolist(), strict=True):
                if sure:
                    ledger.record_win(row, 0, point)
                ledger.finished[row, 0] = True  # last: an interruption may come between any two lines
            tell()

    def report(self, flags: list[Flag]) -> Report:
        """What is known at the end."""
        given, suite = self._given, self._suite
        assert suite.threat is not None
        eps = suite.threat.radii(given.images)
        names = [name for name, _ in self._attacks]
        report = Report(
            name=suite.name,
            norm=suite.threat.name,
            eps=tuple(eps.flatten().tolist()) if isinstance(eps, Tensor) else eps,
            seed=given.random.seed,
            classes=given.logits.shape[1],
            clean=self.clean,
            finite=self.finite,
            parts=tuple(self.parts),
            broken_by=tuple(self._broken_by(row, names) for row in range(len(self.clean))),
            flags=tuple(flags),
            notes=tuple(self.notes),
            versions={
                "torch": torch.__version__,
                "robust-attacks": version("robust-attacks"),
                "dtype": str(given.images.dtype),
            },
            adversarial=self.adversarial,
        )
        if self._eot == 1:
            return report
        wrong = self._fresh_draws()
        return replace(report, misclassified=wrong.double().mean(dim=0), one_draw=~wrong[0])

    def _broken_by(self, row: int, names: list[str]) -> str | None:
        if self.breaker[row] >= 0:
            return names[int(self.breaker[row])]
        if not self.finite[row]:
            return "non-finite"
        return None if self.clean[row] else "clean"

    def _fresh_draws(self) -> Tensor:
        """Where a randomised model misclassifies the result, in draws that no attack has seen, bool (draws, N)."""
        wrong = torch.zeros(_FRESH_DRAWS, len(self.clean), dtype=torch.bool, device="cpu")
        if not len(self.clean):
            return wrong
        passes = Passes(self._model)
        for draw in range(_FRESH_DRAWS):
            parts = _chunks(self.adversarial, self._batch_size)
            logits = torch.cat([passes.logits(some.to(self._given.device)).cpu() for some in parts])
            wrong[draw] = succeeded(cross_entropy, logits, self._given.labels.cpu()) | ~logits.isfinite().all(dim=1)
        return wrong

    def _tell(self, name: str, ledger: Ledger, rows: Tensor) -> None:
        self._told = time.monotonic()
        if self._progress is None:
            return
        won = ledger.won
        done = int((won | ledger.finished.all(dim=1))[rows].sum())
        robust = int((self.standing & self.finite & ~won).sum())
        self._progress(Progress(name, len(self.parts) + 1, len(self._attacks), done, len(rows), robust))

    def _save(self, ledger: Ledger | None, passes: Passes, seconds: float) -> None:
        """Write down what is known, if there is a file for it; of a stage that goes on too."""
        if self._checkpoint is None:
            return
        stage: dict[str, Any] | None = None
        if ledger is not None:
            stage = {"winner": ledger.winner, "finished": ledger.finished, "finite": ledger.finite}
            stage |= {"flips": ledger.flips, "forwards": passes.forwards, "backwards": passes.backwards}
            stage["seconds"] = seconds
        self._checkpoint.save(
            {
                "clean": self.clean,
                "standing": self.standing,
                "finite": self.finite,
                "breaker": self.breaker,
                "adversarial": self.adversarial.cpu(),
                "parts": [vars(part) for part in self.parts],
                "stage": stage,
            }
        )
        self._saved = time.monotonic()

    def _restore(self, ledger: Ledger, passes: Passes) -> float:
        """What was known of an interrupted stage; the seconds that it had taken."""
        known, self._interrupted = self._interrupted, None
        if known is None:
            return 0.0
        ledger.winner, ledger.finished, ledger.finite = known["winner"], known["finished"], known["finite"]
        ledger.flips = known["flips"]
        passes.forwards, passes.backwards = known["forwards"], known["backwards"]
        return float(known["seconds"])


def _fitted(name: str, attack: Any, classes: int) -> tuple[Any, list[str]]:
    """The attack for a model of so few classes, and what was changed, in sentences."""
    targets = getattr(attack, "targets", 0) or 0
    notes = []
    if targets > classes - 1:
        notes.append(f"{name}: {classes} classes leave {classes - 1} targets, not {targets}")
    if isinstance(getattr(attack, "name", None), str) and attack.name == "apgd-t" and classes < 4:
        loss = "z_t - z_y" if classes == 2 else "(z_t - z_y) / (z_(1) - z_(3))"
        notes.append(f"{name}: with {classes} classes the targeted loss is {loss}")
    if getattr(attack, "loss", None) is dlr and classes == 2:
        notes.append(f"{name}: with 2 classes the DLR loss is the margin")
        attack = replace(attack, loss=margin)
    return attack, notes


def _chunks(tensor: Tensor, size: int) -> list[Tensor]:
    """Its rows in parts of `size`; of no rows no part, since many models cannot take an empty batch."""
    return [part for part in torch.split(tensor, size) if len(part)]


def _of_some(attack: Any, rows: Tensor) -> Any:
    """The attack for some of the images, if its threat has a radius for each."""
    threat = getattr(attack, "threat", None)
    some = None if threat is None else threat.select(rows)
    return attack if some == threat else replace(attack, threat=some)


def _is_pooled(attack: Any) -> bool:
    return hasattr(attack, "search")


def _device(model: Any, images: Tensor) -> torch.device:
    """Where the model works: the device of its first parameter, else of the images."""
    owner = getattr(model, "__self__", model)
    parameter = next(owner.parameters(), None) if isinstance(owner, nn.Module) else None
    return images.device if parameter is None else parameter.device
