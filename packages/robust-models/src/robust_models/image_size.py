"""Image sizes that patches of one size fill."""


def checked_size(img_size: int | tuple[int, int], patch: int) -> tuple[int, int]:
    """Return height and width of `img_size`, one number or both.

    Raises:
        ValueError: if one of them is no positive multiple of `patch`.
    """
    height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
    if height < patch or width < patch or height % patch or width % patch:
        raise ValueError(f"img_size must be a positive multiple of {patch}, got {img_size}")
    return height, width
