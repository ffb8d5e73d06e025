"""Random numbers that belong to an image rather than to a batch."""

import functools
import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from robust_attacks import _host
from robust_attacks.philox import philox

Start = int | Tensor
"""Index of the first draw: a number, or int64 (N,) with one per image."""

_WORD = 0xFFFFFFFF
_CHUNK = 1 << 15  # Philox blocks worked on at once: a few arrays of 256 KiB, small enough for the cache
_DEVICE_CHUNK = 1 << 20  # on a device, where a chunk costs some 150 launches however small it is: arrays of 8 MiB


@functools.lru_cache(maxsize=1024)
def key_of(seed: int, use: str) -> tuple[int, int]:
    """The Philox key of a seed and a use: the first 8 bytes of a SHA-256, as two little-endian 32-bit words."""
    digest = hashlib.sha256(f"robust-attacks/1|{seed}|{use}".encode()).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:8], "little")


@dataclass(frozen=True, eq=False)
class ImageRandom:
    """A stream of random numbers for every image: a pure function of seed, image id, use and draw index.

    What an image draws does not depend on the other images, their order, the batch size, the device or on earlier
    calls. `use` names one purpose, as `"pgd/start"`, so that a new purpose never shifts an old one. Words, uniforms,
    signs, integers and choices are bit-identical on every device; normals and exponentials may differ in the last
    bit, because logarithms and cosines do.

    Args:
        seed: any int; set it, never take it from the clock.
        ids: the number of every image in its data set, int64 (N,), not negative; None means 0..N-1 of the call
            that takes the images. Equal ids draw equal numbers.

    Raises:
        TypeError: if `seed` is not an int or `ids` are not integers.
        ValueError: if `ids` is not one-dimensional or an id is negative.

    Examples:
        >>> random = ImageRandom(0, torch.arange(4))
        >>> random.uniform("example", (2,)).shape
        torch.Size([4, 2])
        >>> bool((random[2:].uniform("example", (2,)) == random.uniform("example", (2,))[2:]).all())
        True
    """

    seed: int = 0
    ids: Tensor | None = None

    def __post_init__(self) -> None:
        if isinstance(self.seed, bool) or not isinstance(self.seed, int):
            raise TypeError(f"seed must be an int, got {self.seed!r}")
        if self.ids is None:
            return
        ids = torch.as_tensor(self.ids).detach()
        if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
            raise TypeError(f"ids must be int64 image numbers, got {ids.dtype}")
        if ids.ndim != 1:
            raise ValueError(f"ids must have shape (N,), one number per image, got {tuple(ids.shape)}")
        ids = ids.to(torch.int64, copy=True)  # a value of our own: the caller may go on to change his tensor
        if len(ids) and int(ids.min()) < 0:
            raise ValueError(f"ids must not be negative, got {int(ids.min())}")
        object.__setattr__(self, "ids", ids)

    @classmethod
    def fresh(cls, count: int, device: torch.device | str | None = None) -> "ImageRandom":
        """Streams for images 0..count-1 with a new seed: one draw from torch's CPU generator, and nothing else."""
        seed = int(torch.randint(2**63 - 1, (), dtype=torch.int64, device="cpu"))
        return cls._trusting(seed, torch.arange(count, device=device))

    @classmethod
    def _trusting(cls, seed: int, ids: Tensor) -> "ImageRandom":
        """Streams of ids that are known to be good and that nobody will change: no copy, and no wait for the device."""
        random = object.__new__(cls)
        object.__setattr__(random, "seed", seed)
        object.__setattr__(random, "ids", ids)
        return random

    def of(self, images: Tensor) -> "ImageRandom":
        """The same streams for the images (N, ...) of a call: ids filled in if they were None, on the images' device.

        Raises:
            ValueError: if there is not one id per image.
        """
        count, device = len(images), images.device
        if self.ids is None:
            return ImageRandom._trusting(self.seed, torch.arange(count, device=device))
        if len(self.ids) != count:
            raise ValueError(
                f"random has ids of {len(self.ids)} images, but {count} images were given: pass one id per image"
            )
        return self if self.ids.device == device else ImageRandom._trusting(self.seed, self.ids.to(device))

    def __len__(self) -> int:
        return len(self._known_ids())

    def __getitem__(self, index: Tensor | slice) -> "ImageRandom":
        """The streams of some of the images, chosen by a boolean mask, indices or a slice."""
        return ImageRandom._trusting(self.seed, self._known_ids()[index])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ImageRandom):
            return NotImplemented
        return self.seed == other.seed and self._listed() == other._listed()

    def __hash__(self) -> int:
        return hash((self.seed, self._listed()))

    def words(self, use: str, count: int, start: Start = 0, restart: int = 0, target: int = 0) -> Tensor:
        """Random words, int64 (N, count) in [0, 2^32): draws start..start+count-1 of every image.

        Args:
            use: what the numbers are for, as `"pgd/start"`.
            count: how many words per image.
            start: index of the first draw; int64 (N,) where every image has one of its own (not checked to be in
                0..2^34 - count, since that would make the host wait for the device).
            restart: 0..255, a stream of its own for every restart of an attack.
            target: 0..2^24-1, a stream of its own for every target class (0: untargeted, else the rank).
        """
        return self._draw(use, count, start, restart, target, torch.int64, lambda words: words)

    def uniform(
        self,
        use: str,
        shape: Sequence[int],
        start: Start = 0,
        restart: int = 0,
        target: int = 0,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Uniform numbers in [0, 1), (N, *shape): multiples of 2^-24 from one word each; float64: 2^-53 from two."""
        count = math.prod(shape)
        if dtype == torch.float64:
            words = self.words(use, 2 * count, 2 * start, restart, target)
            numbers = (((words[:, ::2] >> 5) << 26) + (words[:, 1::2] >> 6)).to(dtype) * 2.0**-53
        else:
            _check_float(dtype)
            numbers = self._draw(use, count, start, restart, target, dtype, lambda w: (w >> 8).to(dtype) * 2.0**-24)
        return numbers.reshape(len(self), *shape)

    def normal(
        self,
        use: str,
        shape: Sequence[int],
        start: Start = 0,
        restart: int = 0,
        target: int = 0,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Standard normal numbers, (N, *shape), at most 6.8 in size: Box-Muller in float64, two from two words."""
        _check_float(dtype)
        count = math.prod(shape)
        first = start % 2
        most = 1 if isinstance(first, Tensor) else first

        def convert(words: Tensor) -> Tensor:
            radius = _open(words[:, ::2]).log_().mul_(-2).sqrt_()
            angle = _open(words[:, 1::2]).mul_(2 * math.pi)
            return torch.stack((radius * angle.cos(), radius * angle.sin()), dim=2).flatten(1)

        numbers = self._draw(use, 2 * ((most + count + 1) // 2), start - first, restart, target, dtype, convert)
        return _from(numbers, first, count).reshape(len(self), *shape)

    def exponential(
        self,
        use: str,
        shape: Sequence[int],
        start: Start = 0,
        restart: int = 0,
        target: int = 0,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Exponential numbers of mean 1, (N, *shape), positive: -log of one word each, in float64."""
        _check_float(dtype)
        numbers = self._draw(use, math.prod(shape), start, restart, target, dtype, lambda words: -_open(words).log_())
        return numbers.reshape(len(self), *shape)

    def signs(
        self,
        use: str,
        shape: Sequence[int],
        start: Start = 0,
        restart: int = 0,
        target: int = 0,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Random signs -1 or 1, (N, *shape): the bits 31, 30, ... of every word, 32 signs from one."""
        _check_float(dtype)
        count = math.prod(shape)
        first = start % 32
        most = 31 if isinstance(first, Tensor) else first
        words = self.words(use, (most + count + 31) // 32, start // 32, restart, target)
        bits = (words[:, :, None] >> torch.arange(31, -1, -1, device=words.device)) & 1
        return (2 * _from(bits.flatten(1), first, count) - 1).to(dtype).reshape(len(self), *shape)

    def integers(self, use: str, n: int, count: int, start: Start = 0, restart: int = 0, target: int = 0) -> Tensor:
        """Uniform integers in {0, ..., n-1}, int64 (N, count), for n up to 2^31.

        Lemire's rejection ("Fast random integer generation in an interval", ACM TOMACS 2019, arXiv:1805.10941) over
        four words that every draw owns: the first accepted word counts, else the last (bias below 2^-64 for n up to
        2^16), so that there is no loop and draw j always lies in block j.
        """
        if not 1 <= n <= 2**31:
            raise ValueError(f"n must be in 1..2^31, got {n}")
        return below(n, self.words(use, 4 * count, 4 * start, restart, target).reshape(len(self), count, 4))

    def choice(self, use: str, n: int, k: int, start: Start = 0, restart: int = 0, target: int = 0) -> Tensor:
        """Different integers of {0, ..., n-1}, int64 (N, k), in random order: where the k smallest of n words lie."""
        if not 0 <= k <= n:
            raise ValueError(f"cannot choose {k} of {n} without replacement")
        words = self.words(use, 2 * n, 2 * start, restart, target)
        ordered = ((words[:, ::2] - 2**31) << 32) + words[:, 1::2]  # 64-bit words, shifted into the signed range
        return ordered.argsort(dim=1, stable=True)[:, :k]

    def keys(self, use: str) -> Tensor:
        """One 64-bit key per image and use, int64 (N,), for callers that expand it with a generator of their own."""
        words = self.words(use, 2)
        return words[:, 0] | (words[:, 1] << 32)

    def _known_ids(self) -> Tensor:
        if self.ids is None:
            raise ValueError("this ImageRandom has no ids yet: build it with ids=torch.arange(N), or pass it to a call")
        return self.ids

    def _listed(self) -> tuple[int, ...] | None:
        return None if self.ids is None else tuple(self.ids.tolist())

    def _draw(
        self,
        use: str,
        count: int,
        start: Start,
        restart: int,
        target: int,
        dtype: torch.dtype,
        convert: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """Words start..start+count-1 of every image, converted: (N, count) of `dtype`, made in chunks."""
        ids = self._known_ids()
        if isinstance(start, Tensor):
            _check_starts(start, ids)
            # Whole blocks from the one where the first word of each image lies; the words before it are left out.
            wide = self._blocks(use, (count + 6) // 4 * 4, start >> 2, restart, target, dtype, convert)
            return _from(wide, start & 3, count)
        if count < 0 or start < 0 or start + count > 2**34:
            raise ValueError(f"draws must lie in 0..2^34, got {count} from {start}")
        return self._blocks(use, count, start, restart, target, dtype, convert)

    def _blocks(
        self,
        use: str,
        count: int,
        start: Start,
        restart: int,
        target: int,
        dtype: torch.dtype,
        convert: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """As `_draw`, with `start` a number of a word, or tensor (N,) of the numbers of blocks."""
        ids = self._known_ids()
        if not (0 <= restart < 256 and 0 <= target < 2**24):
            raise ValueError(f"restart must be in 0..255 and target in 0..2^24-1, got {restart} and {target}")
        out = torch.empty(len(ids), count, dtype=dtype, device=ids.device)
        key, c1 = key_of(self.seed, use), restart + 256 * target
        origin, start = (start[:, None], 0) if isinstance(start, Tensor) else (None, start)
        blocks = range(start // 4, (start + count + 3) // 4)
        chunk = _CHUNK if _host.can_look(ids) else _DEVICE_CHUNK
        width = min(max(len(blocks), 1), chunk)
        height = max(chunk // width, 1)
        for row in range(0, len(ids), height):
            some = ids[row : row + height, None]
            for block in range(blocks.start, blocks.stop, width):
                stop = min(block + width, blocks.stop)
                c0 = torch.arange(block, stop, device=ids.device)[None]
                if origin is not None:
                    c0 = c0 + origin[row : row + height]
                made = torch.stack(philox((c0, c1, some & _WORD, some >> 32), key), dim=2).flatten(1)
                low, high = max(start, 4 * block), min(start + count, 4 * stop)
                wanted = convert(made[:, low - 4 * block : high - 4 * block])
                out[row : row + height, low - start : high - start] = wanted
        return out


def below(n: int | Tensor, words: Tensor) -> Tensor:
    """Uniform integers in {0, ..., n-1}, int64 (...), from the four words (..., 4) of each; see `ImageRandom.integers`.

    Args:
        n: 1..2^31, a number or one per draw (...).
        words: int64 in [0, 2^32).
    """
    several = n[..., None] if isinstance(n, Tensor) else n
    products = words * several
    accepted: Tensor = (products & _WORD) >= 2**32 % several
    numbers = products >> 32
    result: Tensor = numbers[..., 3]
    for word in (2, 1, 0):
        result = torch.where(accepted[..., word], numbers[..., word], result)
    return result


def _from(numbers: Tensor, first: int | Tensor, count: int) -> Tensor:
    """Columns first..first+count-1 of every row; `first` may be one per row, (N,)."""
    if not isinstance(first, Tensor):
        return numbers[:, first : first + count]
    return numbers.gather(1, first[:, None] + torch.arange(count, device=first.device))


def _check_starts(start: Tensor, ids: Tensor) -> None:
    if start.dtype != torch.int64 or start.shape != ids.shape or start.device != ids.device:
        raise ValueError(
            f"start must be an int, or one int64 per image, shape {tuple(ids.shape)}, on {ids.device}, "
            f"got {start.dtype} of shape {tuple(start.shape)} on {start.device}"
        )


def _open(words: Tensor) -> Tensor:
    """Words as float64 numbers in the open interval (0, 1)."""
    return words.to(torch.float64).add_(0.5).mul_(2.0**-32)


def _check_float(dtype: torch.dtype) -> None:
    if dtype not in (torch.float32, torch.float64):
        raise TypeError(f"dtype must be torch.float32 or torch.float64, got {dtype}")
