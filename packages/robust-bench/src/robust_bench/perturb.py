"""An adversarial copy of a data set of images."""

import dataclasses
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import torch
from torch import nn

from robust_bench._checks import check_device
from robust_bench.benchmarks.attacks import Norm
from robust_bench.command import command_of
from robust_bench.conditions import Attacked, Clean, Suite, identity
from robust_bench.copies import ABOUT, FORMAT, KEPT, Copies, Format, check_place, copied_names, stored_size
from robust_bench.copying import Copying
from robust_bench.datasets import Folder, class_folders
from robust_bench.datasets.class_map import read_class_map
from robust_bench.evaluate import Interrupted
from robust_bench.files import check_folder
from robust_bench.fingerprint import model_hash
from robust_bench.grey_levels import radius
from robust_bench.judge import Judge
from robust_bench.lending import ready, undisturbed
from robust_bench.listening import listening
from robust_bench.model_source import ModelSource
from robust_bench.named_attack import Setting, named_attack, pixel_units
from robust_bench.perturb_report import copy_result, document, files_settings, image_lines
from robust_bench.preprocess import AsStored, Preprocess, declared
from robust_bench.result import Result
from robust_bench.shards import Shards
from robust_bench.versions import versions
from robust_bench.world import World, local_device, torchrun


@dataclass(frozen=True, kw_only=True)
class Perturb:
    """What `robust-bench perturb` does: an adversarial copy of a folder of images.

    The images get the size that the model takes and are attacked there; the copy `OUT/<class>/<image>` has that size,
    so it must not be resized again. Beside it lie `perturb.json`, with everything that was done and the accuracies, and
    `images.jsonl`, with a line per image. A copy in 8-bit PNG stays inside the ball also after rounding, and what the
    model says of the rounded images is what counts; in .npy the attack's float32 numbers are kept.

    Args:
        dir: folder of images <class>/<image>, one folder per class in the order of the labels (numbers inside names
            count as numbers).
        out: new folder for the copy.
        model: a name such as small_cnn_32, timm:resnet18, zoo:light/..., or package.module:factory.
        eps: largest size of the change in units of [0, 1] pixels, as 0.0157 or 4/255.
        attack: pgd, fgsm, mifgsm, apgd, fab, square, autoattack, or, within eps, ddn, fmn, deepfool, carliniwagner.
        norm: of the change.
        steps: the attack's steps; by default its own.
        restarts: how often an image is attacked from a new random start; by default the attack's own.
        step_size: length of a step, a number or a fraction; by default the attack's own.
        settings: further settings of the attack, e.g. --settings.queries 1000, --settings.loss dlr, and
            --settings.version plus of autoattack.
        format: png, of 8 bits, or npy, one float32 array (C, H, W) in [0, 1] per image.
        weights: file of weights, .safetensors or a plain state dict.
        pretrained: load timm's published weights; by default done for timm: names without --weights.
        num_classes: number of logits; by default the data's classes, or the published weights' own.
        name: the model's name; by default what --model says.
        class_map: labels of the class folders: a file of class names, one a line, or of "name label" lines.
        preprocessing: model: resize and crop as the model declares; none: the files have their final size. By default
            model, but none for a copy that this command made.
        size: side of the square that the model takes, in pixels; by default the model's own.
        device: where to compute, e.g. cuda; by default a GPU if there is one.
        batch_size: images per batch.
        seed: of the attack's random draws.
        workers: processes that read image files; by default up to 4.
        progress: show a progress bar; by default on a terminal.
        shard_size: images that are finished together.
        shard: "i/n": do only the i-th of n parts, counted from 0, as one of n separate jobs; the last one finishes the
            copy.
    """

    dir: Path
    out: Path
    model: str
    eps: float | str
    attack: str = "pgd"
    norm: Norm = "Linf"
    steps: int | None = None
    restarts: int | None = None
    step_size: float | str | None = None
    settings: dict[str, Setting] = field(default_factory=dict)
    format: Format = "png"
    weights: Path | None = None
    pretrained: bool | None = None
    num_classes: int | None = None
    name: str | None = None
    class_map: Path | None = None
    preprocessing: Literal["model", "none"] | None = None
    size: int | None = None
    device: str | None = None
    batch_size: int = 128
    seed: int = 0
    workers: int | None = None
    progress: bool | None = None
    shard_size: int = 64
    shard: str | None = None

    def __call__(self) -> Result:
        """Write the copy; the accuracies on the clean, the adversarial and the written images come back.

        A process that is killed goes on where it was when it is started again with the same settings; what is finished
        is known from `out/.perturb`. Under torchrun the processes divide the work among themselves. Where parts are
        left to other jobs, the result is of what is finished so far, and `perturb.json` is not there yet.

        Raises:
            Interrupted: at Ctrl-C; finished shards are kept.
            ValueError: if a setting is wrong, an image cannot be read, or `out` holds something else or a copy that was
                made with other settings; the message has both values.
            FileNotFoundError: if the images or the weights are missing.
            NotADirectoryError: if `out` cannot be a folder.
            ModelError: if a factory of the user's fails, or the model cannot take the images.
        """
        attack = self._attack()
        check_folder(self.out)
        check_place(self.dir, self.out)
        try:
            with torchrun(), listening() as told:
                return self._copy(attack, told)
        except KeyboardInterrupt as stop:
            raise Interrupted([]) from stop

    def _attack(self) -> Attacked | Suite:
        """The attack that was asked for.

        Raises:
            ValueError: if a setting is wrong, or 8 bits cannot hold so small a change.
        """
        for what, value in (("batch_size", self.batch_size), ("shard_size", self.shard_size)):
            if value < 1:
                raise ValueError(f"{what} must be at least 1, got {value}")
        if self.format not in ("png", "npy"):
            raise ValueError(f"format must be 'png' or 'npy', got {self.format!r}")
        if self.preprocessing not in ("model", "none", None):
            raise ValueError(f"preprocessing must be 'model' or 'none', got {self.preprocessing!r}")
        eps = pixel_units(self.eps)
        given = {"steps": self.steps, "restarts": self.restarts, "step_size": self.step_size}
        chosen = self.settings | {key: value for key, value in given.items() if value is not None}
        attack = named_attack(self.attack, norm=self.norm, eps=eps, settings=chosen)
        if self.format == "png" and 0 < radius(eps) < 1:
            raise ValueError(
                f"eps {self.eps} is less than one grey level (1/255), so PNG files of 8 bits would hold the clean "
                "images: give --format npy, or a larger eps"
            )
        return attack

    def _copy(self, attack: Attacked | Suite, told: list[str]) -> Result:
        """Make the copy; `told` is where warnings are kept."""
        world = World.asked(self.shard)
        asked = check_device(self.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        device = check_device(local_device(asked))
        class_map = None if self.class_map is None else read_class_map(self.class_map)
        classes = len(class_folders(self.dir)) if class_map is None else class_map.num_classes
        source = ModelSource(
            spec=self.model, weights=self.weights, pretrained=self.pretrained, num_classes=self.num_classes
        )
        model = source.build(num_classes=classes, in_chans=3)
        treatment = self._treatment(model)
        data = Folder(self.dir, preprocess=treatment, class_map=class_map)
        copies = self._copies(data, model, attack, treatment)
        copies.shards.check()
        if begun := bool(copies.missing()):
            judge = Judge(model=model, conditions=(Clean(),), seed=self.seed, device=device, classes=classes)
            copying = Copying(model=model, attack=attack, judge=judge, batch_size=self.batch_size, copies=copies)
            workers = min(4, os.cpu_count() or 1) if self.workers is None else self.workers
            progress = False if world.together and world.rank else self.progress
            with undisturbed(device), ready(model, device), torch.autocast(device.type, enabled=False):
                copying.work(data, world, workers, progress)
        world.wait()
        settings = {
            "attack": attack.settings,
            "files": files_settings(self.format, self.norm),
            "model": source.describe(model, self.out),
            "data": self._about(data, treatment),
            "device": str(device),
            "batch_size": self.batch_size,
            "command": command_of(self),
            **({"warnings": list(told)} if told else {}),
        }
        summaries = copies.shards.summaries()
        result = copy_result(attack, summaries, model=self.name or self.model, seed=self.seed, settings=settings)
        first = world.rank == 0 or not world.together
        if first and not copies.missing() and (begun or not (self.out / ABOUT).is_file()):
            copies.finish(image_lines(copies, pixel_units(self.eps)), document(result))
        return result

    def _treatment(self, model: nn.Module) -> Preprocess | AsStored:
        """What is done to the images so that the model takes them."""
        chosen = declared(model) or Preprocess()
        if self.size is not None:
            chosen = dataclasses.replace(chosen, size=self.size)
        stored = stored_size(self.dir)
        if self.preprocessing == "model" or (self.preprocessing is None and stored is None):
            return chosen
        return AsStored(stored=stored or chosen.size, size=chosen.size)

    def _copies(
        self, data: Folder, model: nn.Module, attack: Attacked | Suite, treatment: Preprocess | AsStored
    ) -> Copies:
        fingerprint = {
            "copy": FORMAT,
            "files": self.format,
            "attack": identity(attack),
            "seed": self.seed,
            "preprocessing": treatment.settings,
            "data_sha256": data.fingerprint,
            "model_sha256": model_hash(model),
            "versions": dict(versions()),
        }
        return Copies(
            folder=self.out,
            names=copied_names((data.filename(index) for index in range(len(data))), self.format),
            form=self.format,
            shards=Shards(
                folder=self.out / KEPT,
                fingerprint=fingerprint,
                images=len(data),
                size=self.shard_size,
                what="adversarial copy",
            ),
        )

    def _about(self, data: Folder, treatment: Preprocess | AsStored) -> dict[str, Any]:
        counts = Counter(PurePosixPath(data.filename(index)).parent.name for index in range(len(data)))
        return {
            "path": str(self.dir),
            "sha256": data.fingerprint,
            "images": len(data),
            "classes": {name: counts[name] for name in data.classes},
            "preprocessing": treatment.settings,
        }
