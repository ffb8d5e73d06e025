"""Images per second of the augmentations on one thread, beside those that people run today.

Both sides see the same photographs (scikit-image's, cut to squares), as 8-bit images where the peer works on Pillow's
pictures, and give batches of floats in [0, 1]. Peers go image by image where they do so in their own pipelines.
Times are CPU seconds of the process; the rounds of all are interleaved, and the median counts.

    nox -s bench -- augs
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from _pages import arguments, made_with, prose, publish, table, versions
from _photographs import photographs
from easyrobust.augmentations.aprs import APRecombination, mix_data
from easyrobust.augmentations.augmix import AugMixDataset, AugMixModule
from easyrobust.modules.prime import PRIMEAugmentation32, PRIMEAugmentation224
from PIL import Image
from robust_augs import (
    PRIME,
    APRPair,
    APRSingle,
    AugMix,
    GaussianNoise,
    Noise2Net,
    PatchGaussian,
    PatchOcclusion,
    Patchwise,
    ThreeAugment,
)
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

BATCH = {32: 128, 224: 16}
SEVERITY = {32: 3, 224: 1}


@dataclass(frozen=True)
class Pair:
    """One of ours, and a peer that does the same; the ratio of their speeds is wanted to be at least `goal`."""

    name: str
    ours: Callable[[], object]
    peer: Callable[[], object] | None = None
    peer_name: str = ""
    goal: float | None = None


def stacked(pictures: list[Image.Image]) -> Tensor:
    """A batch of floats from pictures, as a loader makes it."""
    return torch.stack([functional.to_dtype(functional.pil_to_tensor(picture), scale=True) for picture in pictures])


def pairs(size: int) -> list[Pair]:
    """All comparisons at a size."""
    levels = photographs(BATCH[size], size)
    images = levels.float() / 255
    pictures = [functional.to_pil_image(image) for image in levels]
    severity = SEVERITY[size]
    random = torch.Generator().manual_seed(0)

    to_tensor = v2.Compose([v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)])
    pillow = AugMixDataset([(picture, 0) for picture in pictures], to_tensor, aug_severity=severity, img_size=size)
    mixer = AugMixModule(3, device="cpu")

    def augmix_pillow(views: int = 1) -> None:
        for _ in range(views):
            tuples = [pillow[index][0][0] for index in range(len(pictures))]
            mixer([torch.stack(chains) for chains in zip(*tuples, strict=True)])

    augmix = AugMix(severity=severity)
    torchvisions = v2.AugMix(severity=severity)
    single, prime = APRecombination(img_size=size), (PRIMEAugmentation32 if size == 32 else PRIMEAugmentation224)
    published = prime(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    ours = PRIME.cifar if size == 32 else PRIME.imagenet
    patch = size // 14 if size == 224 else 8

    def apr_pair_numpy() -> None:
        pixels = images.numpy()
        other = pixels[np.random.default_rng(0).permutation(len(pixels))]
        spectrum = np.fft.fftn(pixels, axes=(1, 2, 3))
        amplitude = np.abs(np.fft.fftn(other, axes=(1, 2, 3)))
        np.fft.ifftn(amplitude * np.exp(1j * np.angle(spectrum)), axes=(1, 2, 3)).real.astype(np.float32)

    def always(function: Callable[[], object]) -> Callable[[], object]:
        """APR-P of easyrobust leaves half of the batches: let it recombine every time."""

        def run() -> None:
            import easyrobust.augmentations.aprs as module

            kept = module.random.uniform
            module.random.uniform = lambda _low, _high: 0.0
            try:
                function()
            finally:
                module.random.uniform = kept

        return run

    return [
        Pair(
            "AugMix, one view",
            lambda: augmix(levels, generator=random).float() / 255,
            augmix_pillow,
            "Pillow, image by image (easyrobust)",
            3.0 if size == 32 else 2.0,
        ),
        Pair(
            "AugMix, one view, bytes out",
            lambda: augmix(levels, generator=random),
            lambda: [torchvisions(image) for image in levels],
            "torchvision v2.AugMix, an image a call",
        ),
        Pair(
            "AugMix, clean and two views",
            lambda: [augmix(levels, generator=random).float() / 255 for _ in range(2)] + [images],
            lambda: augmix_pillow(2),
            "Pillow, image by image (easyrobust)",
        ),
        Pair(
            "APR-S",
            lambda: APRSingle()(levels, generator=random).float() / 255,
            lambda: stacked([single(picture) for picture in pictures]),
            "numpy and Pillow (easyrobust)",
        ),
        Pair(
            "APR-P, every image",
            lambda: APRPair(probability=1.0)(images, generator=random),
            apr_pair_numpy,
            "numpy",
            7.0 if size == 224 else None,
        ),
        Pair(
            "APR-P, every image",
            lambda: APRPair(probability=1.0)(images, generator=random),
            always(lambda: mix_data(images, use_cuda=False)),
            "torch with angle and exp (easyrobust)",
        ),
        Pair(
            "PRIME, one view",
            lambda: ours(images, generator=random),
            lambda: published(images),
            "published, one draw a batch (easyrobust)",
            20.0 if size == 224 else None,
        ),
        Pair("GaussianNoise", lambda: GaussianNoise()(images, generator=random)),
        Pair("PatchGaussian", lambda: PatchGaussian.imagenet(images, generator=random)),
        Pair("Patchwise", lambda: Patchwise(patch_size=patch)(images, generator=random)),
        Pair("PatchOcclusion", lambda: PatchOcclusion(patch_size=patch)(images, generator=random)),
        Pair("ThreeAugment", lambda: ThreeAugment(size=size)(images, generator=random)),
        Pair("Noise2Net", lambda: Noise2Net()(images, generator=random)),
    ]


def seconds(function: Callable[[], object]) -> float:
    """CPU seconds of a call."""
    start = time.process_time()
    function()
    return time.process_time() - start


def measured(size: int, rounds: int) -> list[dict[str, object]]:
    """Images per second of all pairs, from interleaved rounds."""
    chosen = pairs(size)
    times: list[tuple[list[float], list[float]]] = [([], []) for _ in chosen]
    for round_ in range(rounds + 1):  # the first warms up
        for pair, (ours, peers) in zip(chosen, times, strict=True):
            for function, kept in ((pair.ours, ours), (pair.peer, peers)):
                if function is not None:
                    took = seconds(function)
                    if round_:
                        kept.append(took)
    rows = []
    for pair, (ours, peers) in zip(chosen, times, strict=True):
        speed = BATCH[size] / statistics.median(ours)
        row: dict[str, object] = {"name": pair.name, "size": size, "ours": speed, "peer_name": pair.peer_name}
        if peers:
            ratios = sorted(theirs / mine for mine, theirs in zip(ours, peers, strict=True))
            row |= {
                "peer": BATCH[size] / statistics.median(peers),
                "ratio": statistics.median(ratios),
                "goal": pair.goal,
            }
            row |= {"lowest": ratios[0], "highest": ratios[-1]}
        rows.append(row)
    return rows


def main() -> None:
    """Measure and publish."""
    given = arguments(__doc__, rounds=7)
    torch.set_num_threads(1)
    rounds = 1 if given.quick else given.rounds
    rows = [row for size in BATCH for row in measured(size, rounds)]
    triplets = {
        size: {row["name"]: float(row["ours"]) for row in rows if row["size"] == size}  # type: ignore[arg-type]
        for size in BATCH
    }
    lines = ["# Speed of the augmentations", ""]
    lines += prose(
        f"Images per second of CPU time on one thread, median of {rounds} interleaved rounds; batches of "
        + " and ".join(f"{count} at {size} px" for size, count in BATCH.items())
        + ". The ratio is that of the speeds, with its lowest and highest round."
    )
    for size in BATCH:
        lines += ["", f"### {size} px", ""]
        lines += table(
            ["augmentation", "beside", "ours", "peer", "ratio", "goal"],
            [
                [
                    row["name"],
                    row["peer_name"] or "-",
                    f"{row['ours']:.0f}",
                    f"{row['peer']:.0f}" if "peer" in row else "",
                    f"**{row['ratio']:.2f}** ({row['lowest']:.2f}-{row['highest']:.2f})" if "peer" in row else "",
                    f"{row['goal']:.0f}" if row.get("goal") else "",
                ]
                for row in rows
                if row["size"] == size
            ],
            left=2,
        )
    cost = {size: own["AugMix, one view"] / own["AugMix, clean and two views"] for size, own in triplets.items()}
    lines += ["", *prose(
        "The triplet of a Jensen-Shannon loss (clean and two views) costs "
        + " and ".join(f"{value:.2f} of one view at {size} px" for size, value in cost.items())
        + " (goal: at most 3.1; the clean view costs nothing here)."
    )]  # fmt: skip
    lines += ["", *prose(made_with("easyrobust", "torchvision", "robust-augs"))]
    record = {"rows": rows, "triplet": cost, "versions": versions("easyrobust", "torchvision", "robust-augs")}
    publish(lines, record, given.out)


if __name__ == "__main__":
    main()
