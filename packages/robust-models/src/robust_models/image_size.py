"""Sizes of images that a network can take."""

from torch import Tensor


def check_images(images: Tensor, built_for: tuple[int, int], advice: str = "or build it with another img_size") -> None:
    """Refuse images (N, C, H, W) of another height and width than those in `built_for`.

    Raises:
        ValueError: that names both sizes and says "resize them" and the `advice`.
    """
    height, width = built_for
    if images.shape[-2] != height or images.shape[-1] != width:  # one by one, which torch.export can follow
        raise ValueError(
            f"this network was built for images of {height} x {width} pixels, got {images.shape[-2]} x "
            f"{images.shape[-1]}: resize them, {advice}"
        )


def checked_size(img_size: int | tuple[int, int], patch: int) -> tuple[int, int]:
    """Return height and width of `img_size`, one number or both.

    Raises:
        ValueError: if one of them is no positive multiple of `patch`.
    """
    height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
    if height < patch or width < patch or height % patch or width % patch:
        raise ValueError(f"img_size must be a positive multiple of {patch}, got {img_size}")
    return height, width
