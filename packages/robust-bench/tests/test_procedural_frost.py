"""The made textures: always the same, coloured and rough as asked."""

import pytest
import torch
from robust_bench.corruptions.procedural_frost import procedural_frost


@pytest.fixture(scope="module")
def made():
    return torch.stack(procedural_frost())


def test_there_are_five_different_ones(made):
    assert made.shape == (5, 3, 480, 720)
    assert made.dtype == torch.uint8
    relief = made.double().mean(dim=1).flatten(1)
    relief = (relief - relief.mean(dim=1, keepdim=True)) / relief.std(dim=1, keepdim=True)
    alike = relief @ relief.T / relief.shape[1] - torch.eye(5)
    assert alike.abs().max() < 0.25


def test_the_version_always_means_the_same_pixels(made):
    """Another value here is another texture: then the name of the version must change as well."""
    # Within 1, since another FFT may round the other way.
    assert made[:, 1, 100, 200].tolist() == pytest.approx([148, 230, 202, 126, 160], abs=1)
    assert made[:, 2, 479, 0].tolist() == pytest.approx([162, 223, 255, 173, 133], abs=1)


def test_means_and_deviations_are_those_asked_for(made):
    means = made.double().mean(dim=(2, 3))
    expected = torch.tensor([[78, 149, 166], [201, 205, 214], [201, 205, 214], [138, 153, 165], [112, 123, 135]])
    assert (means - expected).abs().max() < 1
    deviations = made.double().mean(dim=1).std(dim=(1, 2))
    assert deviations.tolist() == pytest.approx([17, 21, 21, 27, 41], abs=0.8)


def test_the_power_falls_with_the_frequency(made):
    """Slope of log power over log frequency, from 8 to 200 cycles per height, of the textures that are not clipped."""
    grey = made[[0, 3]].double().mean(dim=1)
    power = torch.fft.fft2(grey - grey.mean(dim=(1, 2), keepdim=True)).abs().square()
    rows, columns = torch.fft.fftfreq(480, 1 / 480), torch.fft.fftfreq(720, 1 / 480)
    radius = torch.hypot(rows[:, None], columns)
    places = torch.logspace(3, 7.6, 12, base=2)
    near = [(radius > 0.9 * place) & (radius < 1.1 * place) for place in places]
    logs = torch.log2(torch.stack([power[:, ring].mean(dim=1) for ring in near]))
    slopes = torch.linalg.lstsq(torch.stack([places.log2(), torch.ones(12)], dim=1), logs.float()).solution[0]
    assert slopes.tolist() == pytest.approx([-1.9] * 2, abs=0.1)
