"""A corrupted copy of a data set of images, as ImageNet-C, Tiny ImageNet-C and CIFAR-10-C are."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from robust_bench._checks import check_device
from robust_bench.command import command_of
from robust_bench.copies import check_place, copied_names
from robust_bench.corrupt_report import ABOUT, FORMAT, KEPT, add_call, lacking, write_about
from robust_bench.corrupt_source import Source, open_cifar, open_folders
from robust_bench.corrupted_arrays import CorruptedArrays
from robust_bench.corrupted_tree import ENDINGS, JPEG, CorruptedTree, Form
from robust_bench.corrupting import CorruptedFiles, Corrupting
from robust_bench.corruption_cells import Cell, chosen_corruptions, chosen_severities
from robust_bench.corruptions import PRESETS
from robust_bench.corruptions.checks import check_names, check_size, warn_of_size
from robust_bench.corruptions.frost_sources import name_of_textures
from robust_bench.corruptions.presets import SEVERITIES
from robust_bench.corruptions.table import find
from robust_bench.disk_space import check_space
from robust_bench.evaluate import Interrupted
from robust_bench.files import check_folder
from robust_bench.preprocess import AsStored, Preprocess
from robust_bench.shards import Shards
from robust_bench.versions import versions
from robust_bench.world import World, local_device, torchrun


@dataclass(frozen=True, kw_only=True)
class Corrupt:
    """What `robust-bench corrupt` does: a copy of a folder of images under the common corruptions.

    Hendrycks & Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", ICLR 2019,
    arXiv:1903.12261. The copy has the form of the published sets: `OUT/<corruption>/<severity>/<class>/<image>.JPEG`,
    or, of CIFAR, `OUT/<corruption>.npy` with the severities one after another and `OUT/labels.npy`; the benchmarks
    imagenet-c, tiny-imagenet-c and cifar-10-c read it. `OUT/corrupt.json` says everything that was done, and
    which corruptions are complete. The files hold what imagenet-c:generated and cifar-10-c:generated make in memory,
    nearly the same on a GPU; images of JPEG differ from that by its losses.

    Args:
        dir: folder of images <class>/<image>, as ImageNet's validation images in folders of wnids; for the preset cifar
            also cifar-10-batches-py, cifar-100-python, or what one of them lies in.
        out: new folder for the copy.
        preset: whose constants, clean images and files: imagenet (224 pixels), tiny_imagenet (64) or cifar (32).
        corruptions: names, as a list or joined by commas, or common for the fifteen of the mean corruption error, extra
            for the four others, all for the nineteen, or noise, blur, weather, digital. Others can be added later.
        severities: some of 1 to 5, as a list or joined by commas. Others can be added later.
        variant: imagenet_c follows the original script, imagecorruptions the package of that name.
        seed: of the random draws.
        frost: where the textures of frost come from: procedural makes them, package reads those of an installed
            imagecorruptions, a folder those in it.
        format: jpeg, of quality 85 with colour at half the resolution as the published files, or png, without loss; not
            for the preset cifar, whose files are arrays.
        preprocessing: crop: resize the shorter side to 8/7 of the size, bilinear, and cut the centre; none: the files
            have their final size. By default crop for imagenet, none for the others.
        size: side of the clean images in pixels; by default the preset's. The constants are not scaled.
        device: where to compute, cpu or cuda. On a GPU the workers only read, and a few values differ: a copy that was
            begun on one goes on there.
        workers: processes; by default one for each core of the CPU.
        progress: show a progress bar; by default on a terminal.
        shard_size: images that are made together; by default 8, or 100 for the preset cifar, where it must stay the
            same until the copy is complete.
        shard: "i/n": do only the i-th of n parts, counted from 0, as one of n separate jobs; the last one finishes the
            copy.
    """

    dir: Path
    out: Path
    preset: Literal["imagenet", "tiny_imagenet", "cifar"]
    corruptions: list[str] | str = "common"
    severities: list[int] | int | str = "1,2,3,4,5"
    variant: Literal["imagenet_c", "imagecorruptions"] = "imagenet_c"
    seed: int = 0
    frost: str = "procedural"
    format: Form | None = None
    preprocessing: Literal["crop", "none"] | None = None
    size: int | None = None
    device: str = "cpu"
    workers: int | None = None
    progress: bool | None = None
    shard_size: int | None = None
    shard: str | None = None

    def __call__(self) -> bool:
        """Write the copy, and tell whether it is complete: not where parts are left to other jobs.

        A process that is killed goes on where it was when it is started again with the same settings. Under torchrun
        the processes divide the work among themselves.

        Raises:
            Interrupted: at Ctrl-C; finished files are kept.
            ValueError: if a setting is wrong, an image cannot be read, there is too little room on the disk, or `out`
                holds something else or a copy that was made with other settings; the message has both values.
            FileNotFoundError: if the images are missing.
            NotADirectoryError: if `out` cannot be a folder.
            OSError: if a file cannot be written.
        """
        cells = self._cells()
        textures = name_of_textures(self.frost)
        check_folder(self.out)
        check_place(self.dir, self.out, KEPT)
        try:
            with torchrun():
                return self._copy(cells, textures)
        except KeyboardInterrupt as stop:
            raise Interrupted([]) from stop

    def _cells(self) -> tuple[Cell, ...]:
        """What is to be made.

        Raises:
            ValueError: if a setting is wrong.
        """
        names, severities = chosen_corruptions(self.corruptions), chosen_severities(self.severities)
        check_names(self.preset, self.variant)
        if self.format not in (*ENDINGS, None):
            raise ValueError(f"format must be 'jpeg' or 'png', got {self.format!r}")
        if self.preprocessing not in ("crop", "none", None):
            raise ValueError(f"preprocessing must be 'crop' or 'none', got {self.preprocessing!r}")
        for what, value in (("size", self.size), ("shard_size", self.shard_size)):
            if value is not None and value < 1:
                raise ValueError(f"{what} must be at least 1, got {value}")
        if self.workers is not None and self.workers < 0:
            raise ValueError(f"workers must be at least 0, got {self.workers}")
        if self._arrays and self.format is not None:
            raise ValueError(f"the preset 'cifar' writes arrays, .npy, as published: leave --format {self.format} out")
        if self._arrays and severities != SEVERITIES:
            raise ValueError(
                "the files of the preset 'cifar' hold the severities 1 to 5 one after another, so that an image's "
                f"place tells its severity, got {self.severities}: leave --severities out"
            )
        for name in names:
            check_size(find(name, self.variant, self.frost), self._side, self._side)
        return tuple(Cell(name, severity) for name in names for severity in severities)

    def _copy(self, cells: tuple[Cell, ...], textures: str) -> bool:
        world = World.asked(self.shard)
        device = check_device(local_device(check_device(self.device)))
        treatment = self._treatment()
        source = (open_cifar if self._arrays else open_folders)(self.dir, treatment)
        files = self._files(source, cells)
        shards = Shards(
            folder=self.out / KEPT,
            fingerprint={
                "copy": FORMAT,
                **self._settings(textures),
                "preprocessing": treatment.settings,
                "listing_sha256": source.fingerprint,
                "device": device.type,
                "versions": dict(versions()),
            },
            images=len(source),
            size=self._at_once,
            what="corrupted copy",
            fixed_size=self._arrays,
        )
        shards.check()
        about = self._settings(textures) | {
            "data": {
                "name": source.name,
                "path": str(self.dir),
                "listing_sha256": source.fingerprint,
                "images": len(source),
                "classes": dict(source.classes),
                "preprocessing": treatment.settings,
            }
        }
        absent = ~files.present()
        missing = [shard for shard in range(shards.count) if absent[:, shards.ids(shard)].any()]
        first = world.rank == 0 or not world.together
        if mine := world.share(missing):
            if first:
                warn_of_size(self.preset, self._side, self._side)
            corrupting = Corrupting(
                data=source.data,
                preset=self.preset,
                variant=self.variant,
                seed=self.seed,
                frost=self.frost,
                files=files,
                absent=absent,
                shards=shards,
            )
            check_space(self.out, corrupting.needed())
            shards.begin()
            if not (self.out / ABOUT).is_file():  # before the first image, which is else taken for a published one
                write_about(self.out, about)
            corrupting.work(mine, device, self._workers(), self.progress if first else False)
        world.wait()
        complete = bool(files.present().all())
        world.wait()  # until all have looked: arrays are put together from pieces, which are removed
        if first and complete and (missing or lacking(self.out, cells)):
            files.finish()
            add_call(self.out, cells, {"device": str(device), "command": command_of(self)}, about)
        return complete

    @property
    def _arrays(self) -> bool:
        return self.preset == "cifar"

    @property
    def _side(self) -> int:
        return self.size or PRESETS[self.preset].size

    @property
    def _at_once(self) -> int:
        return self.shard_size or (100 if self._arrays else 8)

    def _settings(self, textures: str) -> dict[str, Any]:
        """Everything that the pixels of the files depend on, but for the clean images."""
        form = "npy" if self._arrays else self.format or "jpeg"
        return {
            "preset": self.preset,
            "variant": self.variant,
            "seed": self.seed,
            "frost": textures,
            "jpeg85": form == "jpeg",
            "files": {"format": form, **(JPEG if form == "jpeg" else {})},
        }

    def _workers(self) -> int:
        if self.workers is not None:
            return self.workers
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))

    def _treatment(self) -> Preprocess | AsStored:
        """How image files become clean images."""
        crop = self.preset == "imagenet" if self.preprocessing is None else self.preprocessing == "crop"
        advice = "give --preprocessing crop to have images resized and cut"
        return Preprocess(size=self._side) if crop else AsStored(stored=self._side, advice=advice)

    def _files(self, source: Source, cells: tuple[Cell, ...]) -> CorruptedFiles:
        """Where the corrupted images go."""
        if self._arrays:
            return CorruptedArrays(
                folder=self.out,
                kept=self.out / KEPT,
                labels=source.labels,
                corruptions=tuple(dict.fromkeys(cell.corruption for cell in cells)),
                side=self._side,
                size=self._at_once,
            )
        form = self.format or "jpeg"
        names = copied_names(source.names, ENDINGS[form])
        unfinished = self.out / KEPT / "unfinished"
        return CorruptedTree(folder=self.out, unfinished=unfinished, names=names, cells=cells, form=form)
