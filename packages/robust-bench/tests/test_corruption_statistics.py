"""Random corruptions with our own draws have the statistics of the published code (specification, 9 c)."""

import itertools
import json

import pytest
import torch
from robust_bench.corruptions import CORRUPTIONS, EXTRA_CORRUPTIONS, corrupt

DRAWS = 32
RANDOM = (
    "gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise", "glass_blur", "elastic_transform", "motion_blur",
    "snow", "spatter",
)  # fmt: skip
NAMES = [name for name in RANDOM if name in CORRUPTIONS + EXTRA_CORRUPTIONS]


def spectrum(difference, edges):
    """Log10 of the mean power (2-D FFT, divided by the number of pixels) between neighbouring radii, of (N, H, W).

    The mean is taken off first: the published values hold no power at radius 0.
    """
    height, width = difference.shape[1:]
    centred = difference - difference.mean(dim=(1, 2), keepdim=True)
    power = torch.fft.fftshift(torch.fft.fft2(centred).abs().square(), dim=(1, 2)) / (height * width)
    rows, columns = torch.arange(height) - height // 2, torch.arange(width) - width // 2
    radius = (rows[:, None] ** 2 + columns[None] ** 2).sqrt()
    bands = [power[:, (radius >= low) & (radius < high)].mean(dim=1) for low, high in itertools.pairwise(edges)]
    return {f"logspec{band}": torch.log10(mean) for band, mean in enumerate(bands)}


def statistics(clean, out, edges):
    """The statistics of stats_random.json, each (N,), of one clean image and N corrupted ones, after its README."""
    clean, out = clean.double(), out.double()
    apart = out - clean
    centred = apart - apart.mean(dim=(2, 3), keepdim=True)
    variance = centred.square().mean(dim=(1, 2, 3))
    spread = centred.square().mean(dim=(2, 3)).sqrt()
    pairs = [
        (centred[:, first] * centred[:, second]).mean(dim=(1, 2)) / (spread[:, first] * spread[:, second])
        for first, second in ((0, 1), (0, 2), (1, 2))
    ]
    return {
        "mean_out": out.mean(dim=(1, 2, 3)),
        "mean_diff": apart.mean(dim=(1, 2, 3)),
        "std_diff": apart.flatten(1).std(dim=1, correction=0),
        "psnr": 10 * torch.log10(255.0**2 / apart.square().mean(dim=(1, 2, 3))),
        "frac0": (out == 0).double().mean(dim=(1, 2, 3)),
        "frac255": (out == 255).double().mean(dim=(1, 2, 3)),
        "chan_corr": torch.stack(pairs).mean(dim=0),
        "ac_x": (centred[..., 1:] * centred[..., :-1]).mean(dim=(1, 2, 3)) / variance,
        "ac_y": (centred[:, :, 1:] * centred[:, :, :-1]).mean(dim=(1, 2, 3)) / variance,
        "grad_ratio_x": out.diff(dim=3).abs().mean(dim=(1, 2, 3)) / clean.diff(dim=2).abs().mean(),
        "grad_ratio_y": out.diff(dim=2).abs().mean(dim=(1, 2, 3)) / clean.diff(dim=1).abs().mean(),
        **spectrum(apart.mean(dim=1), edges),
    }


@pytest.mark.shared_data
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_own_draws_have_the_published_statistics(published, shared, name):
    """|mean - ref| <= 4 sqrt(sd^2 / 4 + sd^2 / 32) + .02 |ref|, plus .005 for shares; 1 in 400 may miss it.

    The published code itself, with fresh seeds, misses it once in 3,600 comparisons.
    """
    reference = json.loads((shared / "corruptions" / "stats_random.json").read_text())
    edges = reference["_meta"]["radial_edges"]
    clean, _, _ = published("contrast", 1, "imagenet")  # of which there are all four images
    missed, compared = [], 0
    for number, severity in itertools.product(range(4), (1, 2, 3, 4, 5)):
        batch = clean[number : number + 1].expand(DRAWS, -1, -1, -1)
        ids = torch.arange(DRAWS) + 100 * number
        out = corrupt(batch, name, severity, variant="imagecorruptions", ids=ids)
        found = statistics(clean[number], out, edges)
        entries = reference[f"{name}/{severity}"]
        assert found.keys() == entries.keys()
        for statistic, values in found.items():
            expected, deviation = entries[statistic]["per_image"][number], entries[statistic]["sd_seed"]
            bound = 4 * (deviation**2 / 4 + deviation**2 / DRAWS) ** 0.5 + 0.02 * abs(expected)
            bound += 0.005 if statistic.startswith("frac") else 0.0
            compared += 1
            mean = values.mean().item()
            if not abs(mean - expected) <= bound:
                missed.append((severity, number, statistic, mean, expected, bound))
    assert compared == 400
    assert len(missed) <= 1, missed
