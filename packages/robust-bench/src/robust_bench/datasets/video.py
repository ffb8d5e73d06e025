"""Sequences of frames in video files, as ImageNet-P has them."""

import functools
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from robust_bench.datasets.labelled_folder import Treatment, fingerprint_of
from robust_bench.datasets.listing import Listing


class Videos(Dataset[tuple[Tensor, int]]):
    """Videos `<folder>/<video>.mp4` as float tensors of frames (T, 3, H, W) in [0, 1] with their folders' labels.

    All must have as many frames as the first: what is compared between frames would otherwise not be comparable.

    Args:
        path: what the class folders lie in.
        labels: of every folder that is read.
        preprocess: what is done to every frame.

    Raises:
        ModuleNotFoundError: if PyAV is not installed.
        FileNotFoundError: when it is first used, if a folder is missing.
        ValueError: when it is first used, if a folder has no videos; and for one that is damaged, or has another number
            or size of frames, when it is taken. The message names the file.
    """

    def __init__(self, path: str | Path, labels: Mapping[str, int], *, preprocess: Treatment) -> None:
        pyav()
        self.listing = Listing(path=Path(path), labels=labels, suffixes=(".mp4",))
        self.preprocess = preprocess
        self._transform = preprocess.transform()

    @functools.cached_property
    def fingerprint(self) -> str:
        """The sha256 of the names, sizes and labels of all files, and of what is done to the frames."""
        return fingerprint_of(self.listing, self.preprocess)

    @functools.cached_property
    def frames(self) -> int:
        """The number of frames of the first video."""
        return len(self._decoded(self.listing.file(0)))

    def __len__(self) -> int:
        return len(self.listing)

    def filename(self, index: int) -> str:
        """Name a video from the folder on."""
        return self.listing.name(index)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        file = self.listing.file(index)
        frames = self._decoded(file)
        if len(frames) != self.frames:
            raise ValueError(
                f"the video {file} has {len(frames)} frames, {self.listing.file(0)} has {self.frames}: was it cut off?"
            )
        return torch.stack(frames).to(torch.float32).div_(255.0), self.listing.label(index)

    def _decoded(self, file: Path) -> list[Tensor]:
        av = pyav()
        try:
            with av.open(str(file)) as container:
                frames = [self._transform(frame.to_image()) for frame in container.decode(video=0)]
        except (av.FFmpegError, OSError, ValueError, IndexError) as error:
            raise ValueError(f"cannot read the video {file}: {error}") from error
        if not frames:
            raise ValueError(f"cannot read the video {file}: it has no frames")
        return frames


def pyav() -> Any:
    """Import PyAV.

    Raises:
        ModuleNotFoundError: if it is not installed; the message says how to.
    """
    try:
        return importlib.import_module("av")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'sequences in mp4 files are read by PyAV, which is not installed: pip install "robust-bench[system]"'
        ) from error
