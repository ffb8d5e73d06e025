"""Image files of a folder `<class>/<file>`: found, read and written."""

from pathlib import Path

from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor, resize

from robust_augs._files import encoded, write_whole

SUFFIXES = (".jpg", ".jpeg", ".png")


def find_images(source: Path) -> list[Path]:
    """The JPEG and PNG files `<class>/<file>` of `source`, relative to it and in the order of their names.

    Raises:
        NotADirectoryError: if `source` is no folder.
        FileNotFoundError: if it has no such files.
    """
    if not source.is_dir():
        raise NotADirectoryError(f"the source must be a folder of images <class>/<file>, got {source}")
    found = [path.relative_to(source) for path in source.glob("*/*") if path.suffix.lower() in SUFFIXES]
    if not found:
        raise FileNotFoundError(f"no images <class>/<file> with the endings {', '.join(SUFFIXES)} in {source}")
    return sorted(found, key=Path.as_posix)


def read_image(path: Path, side: int) -> Tensor:
    """An image as a batch (1, 3, H, W) in [0, 1], resized bilinearly so that its shorter side is `side`.

    Raises:
        ValueError: if the file cannot be read as an image.
    """
    try:
        with Image.open(path) as file:
            # Pillow would clip the 16-bit levels of a grey PNG file (mode I;16, once I) instead of scaling them.
            levels = file.point(lambda level: level / 256) if file.mode.startswith("I") else file
            image = levels.convert("RGB")
    except (OSError, SyntaxError) as error:
        raise ValueError(
            f"cannot read {path} as a JPEG or PNG image: {error}. Mend or replace it and run again, what is written "
            "stays; or take it out and begin another target, since the places of the images after it change"
        ) from error
    resized: Tensor = pil_to_tensor(resize(image, [side]))
    return resized.unsqueeze(0).float() / 255


def write_image(image: Tensor, path: Path) -> None:
    """Write `image` (3, H, W), uint8, as PNG or, with Pillow's default quality of 75, JPEG, by the ending of `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, encoded(image, "PNG" if path.suffix.lower() == ".png" else "JPEG"))
