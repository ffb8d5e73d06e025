"""Writes a stylised copy of a data set."""

import hashlib
import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robust_augs._files import read_image, write_whole
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
    one go, on the same machine. A copy is written whole or not at all. The settings lie beside the copies, in
    `stylise_folder.json`; a run with others is refused, which a change of `transform` alone escapes.

    Args:
        transfer: the style transfer, with a bank of styles. It runs where the encoder's parameters are.
        clean: folder with one folder of images per class, as `torchvision.datasets.ImageFolder` takes it.
        stylised: where to write `<class>/<name>.png`.
        transform: what is done with an image (RGB, of PIL) before; None keeps its size. Stylized-ImageNet has
            `Compose([Resize(256), CenterCrop(224)])`. It may return an image of PIL or a tensor (3, H, W).
        seed: of the choice of paintings.
        shard: (index, count): write only every count-th copy, for several processes at a time.
        progress: called as `progress(done, total)` after every image, also after those that existed.

    Returns:
        The number of copies written, without those that existed.

    Raises:
        FileNotFoundError: if there is no such folder, or a class without an image.
        ValueError: if `transfer` has no bank, `shard` is not one, two images would have the same copy, or `stylised`
            was written with other settings.
    """
    if transfer.styles is None:
        raise ValueError("transfer has no paintings: StyleTransfer(..., styles=StyleBank.from_folder(encoder, folder))")
    place, count = shard
    if not 0 <= place < count:
        raise ValueError(f"shard must be (index, count) with 0 <= index < count, got {shard}")
    target = Path(stylised)
    _, pairs = image_pairs(Path(clean), target)
    content = _digest(transfer.encoder, transfer.decoder, transfer.styles.mean, transfer.styles.std)
    _check_record(target, {"seed": seed, "images": len(pairs), "alpha": transfer.alpha, "content": content})
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
    from torchvision.transforms.functional import pil_to_tensor

    image = read_image(path)
    if transform is not None:
        image = transform(image)
    pixels: Tensor = image if isinstance(image, Tensor) else pil_to_tensor(image)
    return pixels.unsqueeze(0)


def _png(transfer: StyleTransfer, image: Tensor, painting: int) -> bytes:
    from torchvision.transforms.functional import to_pil_image

    painted = transfer.apply(image, StyleDraws(style=torch.tensor([painting])))[0]
    levels = painted if painted.dtype == torch.uint8 else (painted * 255).round().to(torch.uint8)
    content = io.BytesIO()
    to_pil_image(levels.cpu()).save(content, "PNG")
    return content.getvalue()


def _digest(*parts: Any) -> str:
    """One hash of all weights and styles that the copies depend on; of plain functions there is nothing to hash."""
    digest = hashlib.sha256()
    for part in parts:
        named = part.state_dict() if isinstance(part, nn.Module) else {"": part} if isinstance(part, Tensor) else {}
        for name, tensor in named.items():
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _check_record(folder: Path, record: dict[str, Any]) -> None:
    """Write down with which settings a folder is made, or compare them with those of the run before."""
    path = folder / RECORD
    if path.is_file():
        before = json.loads(path.read_text())
        changed = [
            f"{name} was {before.get(name)}, is {now}" for name, now in record.items() if now != before.get(name)
        ]
        if changed:
            raise ValueError(f"{folder} was written with other settings ({'; '.join(changed)}): use another folder")
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(path, (json.dumps(record, indent=2) + "\n").encode())
