"""One photograph under all corruptions and severities: the picture of the README, or that of an image of your own.

`nox -s sheet` draws Chelsea the cat (CC0), who lives in the wheel of scikit-image; `nox -s sheet -- IMAGE` another.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from robust_bench.corruptions import contact_sheet


def main() -> None:
    """Cut the middle square out, corrupt it, and save the sheet."""
    parser = argparse.ArgumentParser(description="Draw an image under all corruptions and severities.")
    parser.add_argument("image", type=Path, nargs="?", help="a file; by default the cat of scikit-image")
    parser.add_argument("--side", type=int, default=224, help="pixels to which the middle square is resized")
    parser.add_argument("--out", type=Path, default=Path("runs/corruptions.jpg"), help="the picture")
    given = parser.parse_args()
    if given.image is None:
        from skimage.data import chelsea

        photograph = Image.fromarray(chelsea())
    else:
        photograph = ImageOps.exif_transpose(Image.open(given.image)).convert("RGB")
    square = ImageOps.fit(photograph, (given.side, given.side), Image.Resampling.BICUBIC)
    sheet = contact_sheet(torch.from_numpy(np.array(square)).permute(2, 0, 1))
    given.out.parent.mkdir(parents=True, exist_ok=True)
    options = {"quality": 80, "progressive": True} if given.out.suffix in (".jpg", ".jpeg") else {}
    sheet.save(given.out, optimize=True, **options)
    print(given.out)


if __name__ == "__main__":
    main()
