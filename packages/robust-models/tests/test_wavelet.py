"""The wavelet transform against its definition, its laws, PyWavelets where it is installed, and stored numbers."""

import copy
import itertools
import math

import pytest
import torch
from robust_models.layers.wavelet import DWT, IDWT, LowPass
from robust_models.layers.wavelet_filters import filter_bank

ORTHOGONAL = ["haar", "db2", "db3", "db4", "db5", "db6", "db7", "db8", "sym4", "coif1"]
SPLINES = ["bior1.3", "bior1.5", "bior2.2", "bior2.4", "bior2.6", "bior2.8", "bior3.1", "bior3.3", "bior3.5", "bior3.7"]
WAVELETS = [*ORTHOGONAL, *SPLINES, "bior3.9", "bior4.4", "bior5.5"]
STORED = ["haar", "db2", "db4", "sym4", "coif1", "bior2.2", "bior4.4"]


def signal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def assert_same(found, expected, tolerance=1e-12):
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


# Filters


@pytest.mark.parametrize("wavelet", WAVELETS)
def test_filters_are_duals_at_all_even_shifts(wavelet):
    """sum_k rec[k] dec_reversed[k + 2 m] is 1 for m = 0 and the same kind of filter, else 0: exact reconstruction."""
    bank = filter_bank(wavelet)
    length = len(bank.rec_lo)
    assert length % 2 == 0
    duals = {"lo": bank.dec_lo[::-1], "hi": bank.dec_hi[::-1]}
    for (name, taps), (dual_name, dual) in itertools.product(
        {"lo": bank.rec_lo, "hi": bank.rec_hi}.items(), duals.items()
    ):
        for shift in range(-length // 2, length // 2 + 1):
            product = sum(taps[k] * dual[k + 2 * shift] for k in range(length) if 0 <= k + 2 * shift < length)
            assert abs(product - (name == dual_name and shift == 0)) < 1e-14


@pytest.mark.parametrize(
    ("wavelet", "rec_moments", "dec_moments"),
    [(f"db{order}", order, order) for order in range(2, 9)]
    + [("haar", 1, 1), ("sym4", 4, 4), ("coif1", 2, 2), ("bior4.4", 4, 4), ("bior5.5", 4, 6)]
    + [(name, int(name[6]), int(name[4])) for name in SPLINES],
)
def test_low_pass_filters_have_their_zeros(wavelet, rec_moments, dec_moments):
    """N zeros at -1: sum_k (-1)^k k^m h[k] = 0 for m < N, and not for m = N; the sum is sqrt(2)."""
    bank = filter_bank(wavelet)
    for taps, zeros in ((bank.dec_lo, rec_moments), (bank.rec_lo, dec_moments)):
        assert abs(sum(taps) - math.sqrt(2)) < 1e-14
        middle = len(taps) / 2
        moments = [sum((-1) ** k * (k - middle) ** m * tap for k, tap in enumerate(taps)) for m in range(zeros + 1)]
        scales = [sum(abs((k - middle) ** m * tap) for k, tap in enumerate(taps)) for m in range(zeros + 1)]
        assert all(abs(moment) < 1e-13 * scale for moment, scale in zip(moments[:-1], scales[:-1], strict=True))
        assert abs(moments[-1]) > 1e-6 * scales[-1]


@pytest.mark.parametrize("order", range(2, 9))
def test_daubechies_filters_have_the_least_phase(order):
    """Of all orthogonal filters with these zeros at -1: sum_k h[k] w^k has no root inside the unit circle.

    So the polynomial does not wind around 0 while w runs around a circle within.
    """
    w = 0.9 * torch.exp(1j * torch.linspace(-math.pi, math.pi, 2001, dtype=torch.float64))
    values = sum(tap * w**k for k, tap in enumerate(filter_bank(f"db{order}").rec_lo))
    turns = torch.angle(values[1:] / values[:-1]).sum() / (2 * math.pi)
    assert abs(turns) < 1e-6


def test_names_of_one_wavelet_mean_the_same():
    assert filter_bank("db1") == filter_bank("haar") == filter_bank("bior1.1")
    assert filter_bank("ch3.3") == filter_bank("bior3.3")
    assert filter_bank("ch5.5") == filter_bank("bior5.5")


@pytest.mark.parametrize("wavelet", ["morl", "db", "ch3.4", "Haar!"])
def test_unknown_wavelets_are_refused(wavelet):
    with pytest.raises(ValueError, match="built in"):
        filter_bank(wavelet)


@pytest.mark.parametrize("wavelet", [*WAVELETS, "bior1.1", "bior6.8", "sym8", "coif3", "rbio3.3", "dmey"])
def test_filters_are_those_of_pywavelets(wavelet):
    pywt = pytest.importorskip("pywt")
    for found, expected in zip(filter_bank(wavelet), pywt.Wavelet(wavelet).filter_bank, strict=True):
        assert found == pytest.approx(expected, abs=1e-12)


# Transform


@pytest.mark.shared_data
@pytest.mark.parametrize("wavelet", STORED)
def test_gives_the_stored_numbers(golden, named, wavelet):
    case = golden("modules").stored["cases"][f"dwt_{wavelet}"]

    def given(name, *shape):
        return torch.from_numpy(named(f"1:{name}", math.prod(shape)).reshape(shape))

    def stored(entry):
        return torch.tensor(entry["data"], dtype=torch.float64).reshape(entry["shape"])

    images = given("dwt", 2, 3, 12, 10)
    bands = DWT(wavelet)(images)
    for name, band in zip(("LL", "LH", "HL", "HH"), bands, strict=True):
        assert_same(band, stored(case[name]), 1e-11)
    assert_same(IDWT(wavelet)(*bands), stored(case["idwt"]), 1e-11)
    low, high = DWT(wavelet, dims=1)(given("dwt1", 2, 3, 12))
    assert_same(low, stored(case["dwt1d"]["L"]), 1e-11)
    assert_same(high, stored(case["dwt1d"]["H"]), 1e-11)
    assert_same(DWT(wavelet)(given("dwto", 1, 2, 7, 9))[0], stored(case["odd_size"]["LL"]), 1e-11)


def by_definition(x, taps, count, mode):
    """sum_j taps[j] x[2 i + j - (K / 2 - 1)], one sample at a time."""
    size = len(x)

    def at(index):
        if mode == "zero":
            return x[index] if 0 <= index < size else 0.0
        if mode == "periodic":
            return x[index % size]
        while not 0 <= index < size:
            index = -index if index < 0 else 2 * (size - 1) - index
        return x[index]

    return [sum(tap * at(2 * i + j - len(taps) // 2 + 1) for j, tap in enumerate(taps)) for i in range(count)]


@pytest.mark.parametrize("mode", ["zero", "periodic", "reflect"])
@pytest.mark.parametrize("wavelet", ["haar", "db3", "bior2.4", "db8"])
@pytest.mark.parametrize("size", [2, 3, 6, 9, 20])
def test_follows_the_definition(wavelet, mode, size):
    x = signal(1, 1, size)
    low, high = DWT(wavelet, dims=1, mode=mode)(x)
    bank, samples = filter_bank(wavelet), x.flatten().tolist()
    counts = (size // 2, size - size // 2)
    if mode == "periodic" and size % 2:
        samples, counts = [*samples, samples[-1]], (size // 2 + 1, size // 2 + 1)
    assert_same(low.flatten(), torch.tensor(by_definition(samples, bank.rec_lo, counts[0], mode), dtype=x.dtype))
    assert_same(high.flatten(), torch.tensor(by_definition(samples, bank.rec_hi, counts[1], mode), dtype=x.dtype))


def test_bands_are_ordered_by_axis():
    """LH: low along rows' axis -2, high along -1."""
    rows, columns = signal(6), signal(8, seed=1)
    image = (rows[:, None] * columns)[None, None]
    low_rows, high_rows = (each[0, 0] for each in DWT("db2", dims=1)(rows[None, None]))
    low_columns, high_columns = (each[0, 0] for each in DWT("db2", dims=1)(columns[None, None]))
    expected = [torch.outer(one, two) for one in (low_rows, high_rows) for two in (low_columns, high_columns)]
    for band, product in zip(DWT("db2")(image), expected, strict=True):
        assert_same(band[0, 0], product)
    depth = signal(4, seed=2)
    volume = (depth[:, None, None] * image[0, 0])[None, None]
    pair = [each[0, 0] for each in DWT("db2", dims=1)(depth[None, None])]
    for index, band in enumerate(DWT("db2", dims=3)(volume)):
        assert_same(band[0, 0], pair[index // 4][:, None, None] * expected[index % 4])


@pytest.mark.parametrize("size", [2, 3, 4, 7, 16, 33])
@pytest.mark.parametrize("wavelet", WAVELETS)
def test_periodic_transform_is_inverted_exactly(wavelet, size):
    """Also where the filter is longer than the signal; an odd size comes back with its last sample twice."""
    x = signal(2, 3, size)
    back = IDWT(wavelet, dims=1, mode="periodic")(*DWT(wavelet, dims=1, mode="periodic")(x))
    assert_same(back, x if size % 2 == 0 else torch.cat([x, x[..., -1:]], -1), 1e-11)


@pytest.mark.parametrize("shape", [(7, 9), (8, 5), (2, 3), (6, 4, 5), (3, 3, 3)])
def test_haar_is_inverted_exactly_for_every_size(shape):
    x = signal(2, 3, *shape)
    assert_same(IDWT(dims=len(shape))(*DWT(dims=len(shape))(x)), x)


@pytest.mark.parametrize("shape", [(8, 6), (5, 8), (4, 6, 8)])
def test_periodic_transform_is_inverted_in_all_dimensions(shape):
    x, dims = signal(1, 2, *shape), len(shape)
    back = IDWT("bior4.4", dims=dims, mode="periodic")(*DWT("bior4.4", dims=dims, mode="periodic")(x))
    assert_same(back[tuple(slice(size) for size in x.shape)], x)


@pytest.mark.parametrize("mode", ["zero", "reflect"])
@pytest.mark.parametrize("wavelet", WAVELETS)
def test_other_modes_are_exact_away_from_the_border(wavelet, mode):
    x, length = signal(1, 1, 81), len(filter_bank(wavelet).rec_lo)
    back = IDWT(wavelet, dims=1, mode=mode)(*DWT(wavelet, dims=1, mode=mode)(x))
    assert back.shape == x.shape
    assert_same(back[..., length:-length], x[..., length:-length], 1e-11)


@pytest.mark.parametrize("wavelet", ORTHOGONAL)
def test_orthogonal_wavelets_keep_the_energy(wavelet):
    x = signal(1, 2, 16, 12)
    bands = DWT(wavelet, mode="periodic")(x)
    assert_same(sum(band.square().sum() for band in bands), x.square().sum())


@pytest.mark.parametrize("wavelet", ["haar", "db3", "sym4"])
def test_the_inverse_of_an_orthogonal_wavelet_is_the_transpose(wavelet):
    x = signal(1, 1, 12, 10)
    bands = DWT(wavelet)(x)
    others = [signal(*band.shape, seed=index + 1) for index, band in enumerate(bands)]
    product = sum((band * other).sum() for band, other in zip(bands, others, strict=True))
    assert_same(product, (x * IDWT(wavelet)(*others)).sum())


@pytest.mark.parametrize("wavelet", WAVELETS)
def test_constants_have_gain_two_in_the_low_band_and_none_elsewhere(wavelet):
    bands = DWT(wavelet, mode="periodic")(torch.full((1, 1, 24, 20), 3.0, dtype=torch.float64))
    assert_same(bands[0], torch.full_like(bands[0], 6.0))
    for band in bands[1:]:
        assert_same(band, torch.zeros_like(band))


@pytest.mark.parametrize("size", [2, 5, 8, 13])
@pytest.mark.parametrize("wavelet", ["haar", "db2", "db8", "bior2.2"])
def test_agrees_with_pywavelets(wavelet, size):
    """Its periodization begins at another sample, and it reverses the filters: one circular shift apart."""
    pywt = pytest.importorskip("pywt")
    x = signal(size)
    length = len(filter_bank(wavelet).rec_lo)
    reversed_wavelet = pywt.Wavelet("reversed", [taps[::-1] for taps in map(list, _as_decomposition(wavelet))])
    expected = pywt.dwt(x.numpy(), reversed_wavelet, mode="periodization")
    for found, band in zip(DWT(wavelet, dims=1, mode="periodic")(x[None, None]), expected, strict=True):
        band = torch.tensor(band, dtype=torch.float64)
        shifts = [torch.roll(band, shift) for shift in range(-length, length + 1)]
        assert min((found[0, 0] - each).abs().max() for each in shifts) < 1e-11


def _as_decomposition(wavelet):
    bank = filter_bank(wavelet)
    return bank.rec_lo, bank.rec_hi, bank.dec_lo, bank.dec_hi


# Low band alone


@pytest.mark.parametrize("mode", ["zero", "periodic", "reflect"])
def test_low_pass_is_the_first_band(mode):
    x = signal(2, 3, 12, 10)
    assert_same(LowPass("db3", mode=mode)(x), DWT("db3", mode=mode)(x)[0])


def test_low_pass_of_haar_is_twice_the_mean_of_four_pixels():
    x = signal(2, 3, 12, 10)
    assert_same(LowPass()(x), 2 * torch.nn.functional.avg_pool2d(x, 2))


@pytest.mark.parametrize("shape", [(1, 1), (7, 9), (5, 8), (1, 6)])
def test_low_pass_rounds_odd_sizes_up_and_keeps_constants(shape):
    low = LowPass()(torch.ones(1, 2, *shape, dtype=torch.float64))
    assert_same(low, torch.full((1, 2, math.ceil(shape[0] / 2), math.ceil(shape[1] / 2)), 2.0, dtype=torch.float64))


# Gradients, devices and types


@pytest.mark.parametrize("mode", ["zero", "periodic", "reflect"])
@pytest.mark.parametrize("wavelet", ["haar", "bior2.2"])
def test_gradients_are_those_of_the_differences(wavelet, mode):
    x = signal(1, 1, 5, 4).requires_grad_()
    assert torch.autograd.gradcheck(DWT(wavelet, mode=mode), (x,))
    assert torch.autograd.gradcheck(LowPass(wavelet, mode=mode), (x,))
    bands = [band.detach().requires_grad_() for band in DWT(wavelet, mode=mode)(x)]
    assert torch.autograd.gradcheck(IDWT(wavelet, mode=mode), bands)
    assert torch.autograd.gradgradcheck(LowPass(wavelet, mode=mode), (x,))


def test_taps_are_as_exact_as_the_input():
    x = signal(1, 3, 8, 8)
    expected = LowPass("db4").double()(x)
    assert expected.dtype == torch.float64
    assert LowPass("db4").double().taps[0].tolist() == list(filter_bank("db4").rec_lo)
    assert torch.equal(LowPass("db4")(x), expected)  # float64 images, float32 layer
    assert torch.equal(LowPass("db4").half().double()(x), expected)
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.bfloat16, 0.03)):
        low = LowPass("db4").to(dtype)(x.to(dtype))
        assert low.dtype == dtype
        torch.testing.assert_close(low.double(), expected, rtol=0, atol=tolerance * expected.abs().max().item())
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(LowPass("db4")(x.float()).double(), expected, rtol=0, atol=0.1)


def test_a_layer_from_the_meta_device_gets_its_taps():
    with torch.device("meta"):
        layer = LowPass("db4")
    assert layer(torch.empty(1, 1, 8, 8, device="meta")).shape == (1, 1, 4, 4)
    assert torch.equal(layer.to_empty(device="cpu").taps, LowPass("db4").taps)


def test_taps_are_kept_and_not_saved():
    """The published layers build their matrices again in every pass."""
    layer, x = LowPass("db4"), torch.rand(1, 3, 8, 8)
    before = layer.taps
    layer(x)
    assert layer.taps is before
    assert not layer.state_dict()
    assert not list(layer.parameters())
    assert torch.equal(copy.deepcopy(layer)(x), layer(x))


def test_keeps_the_memory_format():
    x = torch.rand(2, 8, 12, 12).to(memory_format=torch.channels_last)
    low = LowPass("db2")(x)
    assert low.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(low, LowPass("db2")(x.contiguous()))


def test_can_be_exported():
    class RoundTrips(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.forth = torch.nn.ModuleList(DWT("db2", 1, mode) for mode in ("zero", "periodic", "reflect"))
            self.back = torch.nn.ModuleList(IDWT("db2", 1, mode) for mode in ("zero", "periodic", "reflect"))

        def forward(self, x):
            return [back(*forth(x)) for forth, back in zip(self.forth, self.back, strict=True)]

    model, x = RoundTrips(), torch.rand(1, 2, 9)
    torch.testing.assert_close(torch.export.export(model, (x,)).module()(x), model(x))


# Errors


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="dims must be 1, 2 or 3, got 4"):
        DWT(dims=4)
    with pytest.raises(ValueError, match="mode must be one of zero, periodic, reflect, got 'symmetric'"):
        LowPass(mode="symmetric")
    with pytest.raises(ValueError, match=r"2 axes after N and C, got torch.float32 of shape \(1, 8, 8\)"):
        DWT()(torch.rand(1, 8, 8))
    with pytest.raises(ValueError, match=r"float tensor .* got torch.uint8"):
        LowPass()(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"at least 2 samples .* got shape \(1, 3, 1, 8\)"):
        DWT()(torch.rand(1, 3, 1, 8))
    with pytest.raises(ValueError, match="2 dims need 4 bands, got 2"):
        IDWT()(torch.rand(1, 3, 4, 4), torch.rand(1, 3, 4, 4))
    with pytest.raises(ValueError, match=r"along axis 2.*low \(1, 3, 4\) and high \(1, 3, 6\)"):
        IDWT(dims=1)(torch.rand(1, 3, 4), torch.rand(1, 3, 6))
    with pytest.raises(ValueError, match=r"low \(1, 3, 4\) and high \(1, 2, 4\)"):
        IDWT(dims=1)(torch.rand(1, 3, 4), torch.rand(1, 2, 4))
