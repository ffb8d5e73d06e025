"""Writes a stylised copy of a data set."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from robust_augs._files import check_outside, encoded, read_image, write_whole
from robust_augs._images import check_images
from robust_augs._record import check_record, check_shard, digest_of_names, digest_of_numbers
from robust_augs.style import StyleDraws, StyleTransfer
from robust_augs.stylised_folder import image_pairs

RECORD = "stylise_folder.json"


def stylise_folder(
    transfer: StyleTransfer,
    clean: str | Path,
    stylised: str | Path,
    *,
    transform: Callable[[Any], Any] | None = None,
    seed: int = 0,
    shard: tuple[int, int] = (0, 1),
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write a copy of every image of a folder, each in the style of one painting.

    Geirhos et al., ICLR 2019, arXiv:1811.12231 (Stylized-ImageNet): alpha 1, images of 224 pixels, one painting per
    image, drawn uniformly. Here it is drawn from (seed, index of the image) alone. `StylisedFolder` reads the result.

    Copies that exist are kept, so a run that was cut off goes on where it stopped, and its files are those of a run in
    one go, on the same machine. A copy is written whole or not at all. What they are made from lies beside the copies,
    in `stylise_folder.json`: seed, alpha, the number of images, and hashes of their names and of the numbers in
    encoder, decoder and bank. A run with others is refused. What has no numbers escapes: another `transform`, another
    plain function as a network, and images that changed under the same names.

    Args:
        transfer: the style transfer, with a bank of styles. It runs where the encoder's parameters are.
        clean: folder with one folder of images per class, as `torchvision.datasets.ImageFolder` takes it.
        stylised: where to write `<class>/<name>.png`.
        transform: what is done with an image (RGB, of PIL) before; None keeps its size. Stylized-ImageNet has
            `Compose([Resize(256), CenterCrop(224)])`. It may return an image of PIL or a tensor (3, H, W),
            floats in [0, 1] or uint8: not normalised.
        seed: of the choice of paintings.
        shard: (index, count): write only every count-th copy, for several processes at a time.
        progress: called as `progress(done, total)` after every image, also after those that existed.

    Returns:
        The number of copies written, without those that existed.

    Raises:
        FileNotFoundError: if there is no such folder, or a class without an image.
        TypeError: if `transform` returns neither an image of PIL nor a tensor of floats or uint8.
        ValueError: if `transfer` has no bank, `shard` is not one, two images would have the same copy, `stylised` lies
            in `clean` or was written with other settings, or `transform` returns values outside [0, 1] or another
            shape.
    """
    if transfer.styles is None:
        raise ValueError("transfer has no paintings: StyleTransfer(..., styles=StyleBank.from_folder(encoder, folder))")
    place, count = check_shard(shard)
    source, target = Path(clean), Path(stylised)
    check_outside(source, target)
    _, pairs = image_pairs(source, target)
    record = {
        "seed": seed,
        "images": len(pairs),
        "names": digest_of_names(original.relative_to(source) for original, _, _ in pairs),
        "alpha": transfer.alpha,
        "content": digest_of_numbers(transfer.encoder, transfer.decoder, transfer.styles.mean, transfer.styles.std),
    }
    check_record(target / RECORD, record)
    written = 0
    mine = range(place, len(pairs), count)
    for done, index in enumerate(mine, start=1):
        original, copy, _ = pairs[index]
        if not copy.exists():
            painting = random.Random(f"{seed} {index}").randrange(len(transfer.styles))
            copy.parent.mkdir(parents=True, exist_ok=True)
            write_whole(copy, _png(transfer, _pixels(original, transform), painting))
            written += 1
        if progress is not None:
            progress(done, len(mine))
    return written


def _pixels(path: Path, transform: Callable[[Any], Any] | None) -> Tensor:
    image = read_image(path)
    if transform is not None:
        image = transform(image)
    pixels: Tensor = image if isinstance(image, Tensor) else pil_to_tensor(image)
    batch = pixels.unsqueeze(0)
    check_images(batch.cpu())  # where values are looked at too
    return batch


def _png(transfer: StyleTransfer, image: Tensor, painting: int) -> bytes:
    painted = transfer.apply(image, StyleDraws(style=torch.tensor([painting])))[0]
    levels = painted if painted.dtype == torch.uint8 else (painted * 255).round().to(torch.uint8)
    return encoded(levels, "PNG")
