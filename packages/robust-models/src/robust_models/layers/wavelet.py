"""The discrete wavelet transform, its inverse and its low band, as strided depth-wise convolutions."""

from collections.abc import Callable
from typing import Literal, Self, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from robust_models.layers.wavelet_filters import filter_bank

Mode = Literal["zero", "periodic", "reflect"]


class _WaveletLayer(nn.Module):
    """Holds a low-pass and a high-pass filter on the module's device, rounded once to its precision."""

    taps: Tensor  # (2, K)

    def __init__(self, wavelet: str, dims: int, mode: Mode, low: tuple[float, ...], high: tuple[float, ...]) -> None:
        super().__init__()
        if dims not in (1, 2, 3):
            raise ValueError(f"dims must be 1, 2 or 3, got {dims}")
        if mode not in get_args(Mode):
            raise ValueError(f"mode must be one of {', '.join(get_args(Mode))}, got {mode!r}")
        self.wavelet, self.dims, self.mode = wavelet, dims, mode
        self._exact = (low, high)
        self.register_buffer("taps", torch.tensor(self._exact), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        # Taps that were float32, or on the meta device, do not become exact by a cast.
        self.taps = torch.tensor(self._exact, dtype=self.taps.dtype, device=self.taps.device)
        return self

    def _taps_for(self, x: Tensor) -> Tensor:
        """The taps in the precision of `x` (N, C, ...), which is checked."""
        if x.ndim != self.dims + 2 or not x.is_floating_point():
            raise ValueError(
                f"expected a float tensor with {self.dims} axes after N and C, got {x.dtype} of shape {tuple(x.shape)}"
            )
        if x.dtype == torch.float64 and self.taps.dtype != torch.float64:
            return torch.tensor(self._exact, dtype=x.dtype, device=x.device)
        return self.taps.to(x.dtype)

    def extra_repr(self) -> str:
        """What `repr` shows: the arguments."""
        return f"{self.wavelet!r}, dims={self.dims}, mode={self.mode!r}"


class DWT(_WaveletLayer):
    """Split signals, images or volumes into bands of half the size by a separable wavelet transform.

    Along each axis, with K taps, `low[i] = sum_j rec_lo[j] x[2 i + j - (K / 2 - 1)]`, and `high` likewise. Mallat, "A
    Theory for Multiresolution Signal Decomposition: The Wavelet Representation", PAMI 1989; as a layer in Li et al.,
    "Wavelet Integrated CNNs for Noise-Robust Image Classification", CVPR 2020, arXiv:2005.03337, whose published code
    builds matrices in each pass and takes even sizes alone.

    An axis of n samples gives floor(n / 2) low ones and the rest high; in mode "periodic" an odd axis is first made
    longer by repeating its last sample, as PyWavelets' "periodization" does, and both bands are equally long.

    Args:
        wavelet: a name of PyWavelets; see `filter_bank`.
        dims: number of axes after batch and channels, 1 to 3.
        mode: what lies beyond the border: "zero", the "periodic" signal, or the signal "reflect"ed at its last sample.

    Raises:
        ValueError: for an unknown wavelet, `dims` or `mode`.

    Examples:
        >>> low, high = DWT("haar", dims=1)(torch.tensor([[[3.0, 1.0, 2.0, 2.0]]]))
        >>> torch.round(low * 2**0.5).tolist(), torch.round(high * 2**0.5).tolist()
        ([[[4.0, 4.0]]], [[[2.0, 0.0]]])
    """

    def __init__(self, wavelet: str = "haar", dims: int = 2, mode: Mode = "zero") -> None:
        bank = filter_bank(wavelet)
        super().__init__(wavelet, dims, mode, bank.rec_lo, bank.rec_hi)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the 2 ** dims bands of `x` (N, C, ...), the first axis slowest: LL, LH, HL, HH of an image.

        In LH rows (axis -2) are low and columns (axis -1) high.

        Raises:
            ValueError: if `x` is not floating, has another number of axes, or has an axis shorter than 2.
        """
        taps = self._taps_for(x)
        if min(x.shape[2:]) < 2:
            raise ValueError(f"each axis needs at least 2 samples to be halved, got shape {tuple(x.shape)}")
        bands = [x]
        for axis in range(2, x.ndim):
            bands = [half for band in bands for half in _split(band, taps, axis, self.mode)]
        return tuple(bands)


class LowPass(_WaveletLayer):
    """Halve each axis by keeping the low band alone, as a down-sampling that removes noise and aliases less.

    Li et al., "Wavelet Integrated CNNs for Noise-Robust Image Classification", CVPR 2020, arXiv:2005.03337, section
    3.2. With even sizes it is the first band of `DWT`. An odd axis is first made longer by repeating its last sample,
    so that n samples become ceil(n / 2), as many as strided convolutions and max-pooling leave; the published code
    fails there. Constants are multiplied by sqrt(2) ** dims (haar: everywhere, others: away from a "zero" border).

    Args:
        wavelet: a name of PyWavelets; see `filter_bank`.
        dims: number of axes after batch and channels, 1 to 3.
        mode: what lies beyond the border; see `DWT`.

    Raises:
        ValueError: for an unknown wavelet, `dims` or `mode`.
    """

    def __init__(self, wavelet: str = "haar", dims: int = 2, mode: Mode = "zero") -> None:
        bank = filter_bank(wavelet)
        super().__init__(wavelet, dims, mode, bank.rec_lo, bank.rec_hi)

    def forward(self, x: Tensor) -> Tensor:
        """Return the low band of `x` (N, C, ...), with the sizes ceil(n / 2).

        Raises:
            ValueError: if `x` is not floating or has another number of axes.
        """
        low_pass = self._taps_for(x)[0]
        for axis in range(2, x.ndim):
            x = _evened(x, axis)
            x = _filter(x, low_pass, axis, x.shape[axis] // 2, self.mode)
        return x


class IDWT(_WaveletLayer):
    """Put the bands of `DWT` together again.

    The transpose of the transform, with the decomposition filters reversed. Exact in mode "periodic", and for haar also
    in mode "zero"; otherwise exact away from the border, beyond which the bands are not known.

    Args:
        wavelet: a name of PyWavelets; see `filter_bank`.
        dims: number of axes after batch and channels, 1 to 3.
        mode: what lies beyond the border of signal and bands; see `DWT`.

    Raises:
        ValueError: for an unknown wavelet, `dims` or `mode`.

    Examples:
        >>> image = torch.rand(1, 3, 32, 32, dtype=torch.float64)
        >>> torch.allclose(IDWT("db4", mode="periodic")(*DWT("db4", mode="periodic")(image)), image)
        True
    """

    def __init__(self, wavelet: str = "haar", dims: int = 2, mode: Mode = "zero") -> None:
        bank = filter_bank(wavelet)
        super().__init__(wavelet, dims, mode, bank.dec_lo[::-1], bank.dec_hi[::-1])

    def forward(self, *bands: Tensor) -> Tensor:
        """Return the signal whose 2 ** dims bands, each (N, C, ...), are given in the order of `DWT`.

        Along each axis it has as many samples as the low and the high band together. In mode "periodic" an odd axis
        therefore comes back with its last sample twice: cut it off.

        Raises:
            ValueError: for another number of bands, or bands whose shapes do not belong together.
        """
        if len(bands) != 2**self.dims:
            raise ValueError(f"{self.dims} dims need {2**self.dims} bands, got {len(bands)}")
        taps = self._taps_for(bands[0])
        parts = list(bands)
        for axis in reversed(range(2, self.dims + 2)):
            pairs = zip(parts[::2], parts[1::2], strict=True)
            parts = [_join(low, high, taps, axis, self.mode) for low, high in pairs]
        return parts[0]


def _split(x: Tensor, taps: Tensor, axis: int, mode: Mode) -> tuple[Tensor, Tensor]:
    x = _evened(x, axis) if mode == "periodic" else x
    size = x.shape[axis]
    return _filter(x, taps[0], axis, size // 2, mode), _filter(x, taps[1], axis, size - size // 2, mode)


def _filter(x: Tensor, taps: Tensor, axis: int, count: int, mode: Mode) -> Tensor:
    """The first `count` of sum_j taps[j] x[2 i + j - (K / 2 - 1)] along an axis."""
    reach = len(taps) // 2 - 1
    x = _extended(x, axis, reach, 2 * count - x.shape[axis] + reach, mode)
    kernel, stride = _along(taps, x, axis)
    convolve = (functional.conv1d, functional.conv2d, functional.conv3d)[x.ndim - 3]
    return convolve(x, kernel, stride=stride, groups=x.shape[1])


def _join(low: Tensor, high: Tensor, taps: Tensor, axis: int, mode: Mode) -> Tensor:
    """Sum over i of low_taps[j] low[i] + high_taps[j] high[i] at 2 i + j - (K / 2 - 1) along an axis."""
    if low.narrow(axis, 0, 0).shape != high.narrow(axis, 0, 0).shape or high.shape[axis] - low.shape[axis] not in (
        0,
        1,
    ):
        raise ValueError(
            f"a high band is as large as the low band along axis {axis}, or one longer, and equal elsewhere: got low "
            f"{tuple(low.shape)} and high {tuple(high.shape)}"
        )
    size = low.shape[axis] + high.shape[axis]
    if len(taps[0]) == 2 and mode == "zero" and size % 2:
        # The last window of haar held one sample and a zero, so that both filters gave the same.
        low = torch.cat([low, high.narrow(axis, -1, 1)], axis)
    reach = taps.shape[1] // 2 - 1
    before, last = taps.shape[1] // 4, (size - 1 + reach) // 2  # the bands needed are -before ... last
    total: Tensor | None = None
    for band, filter_taps in zip((low, high), taps, strict=True):
        band = _extended(band, axis, before, last + 1 - band.shape[axis], mode)
        kernel, stride = _along(filter_taps, band, axis)
        spread = (functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d)[band.ndim - 3]
        part = spread(band, kernel, stride=stride, groups=band.shape[1])
        total = part if total is None else total + part
    assert total is not None
    return total.narrow(axis, 2 * before + reach, size)


def _along(taps: Tensor, x: Tensor, axis: int) -> tuple[Tensor, list[int]]:
    """The depth-wise kernel with `taps` along one axis of `x`, and the stride that halves this axis."""
    shape, stride = [1] * x.ndim, [1] * (x.ndim - 2)
    shape[axis], stride[axis - 2] = len(taps), 2
    return taps.reshape(shape).expand(x.shape[1], *shape[1:]), stride


def _evened(x: Tensor, axis: int) -> Tensor:
    """`x` with its last sample along the axis repeated where their number is odd."""
    return torch.cat([x, x.narrow(axis, -1, 1)], axis) if x.shape[axis] % 2 else x


def _extended(x: Tensor, axis: int, before: int, after: int, mode: Mode) -> Tensor:
    """`x` with samples more along the axis, fewer where a number is negative."""
    if before == after == 0:
        return x
    if mode == "zero":
        return functional.pad(x, [0, 0] * (x.ndim - 1 - axis) + [before, after])
    size = x.shape[axis]
    index = torch.arange(-before, size + after, device=x.device)
    if mode == "periodic":
        return x.index_select(axis, index % size)
    last = max(size - 1, 1)  # one sample is its own mirror image
    return x.index_select(axis, (last - (index % (2 * last) - last).abs()) % size)
