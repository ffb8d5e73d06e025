"""Decision boundaries around an image."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from robust_attacks import ImageRandom
from torch import Tensor

from robust_viz import _boundary_drawing as drawing
from robust_viz._purity import Model, evaluating, logits_of
from robust_viz.plane import Norm, Plane, directions


@dataclass(frozen=True, kw_only=True, eq=False)
class DecisionBoundary:
    """How a model classifies a plane of images around one image; made by `decision_boundary`.

    Rows of the maps go along the gradient of the loss, columns along the random direction, both from -extent to
    +extent. All tensors lie on the CPU. Distances are lengths in the norm, inf where the label is not lost within the
    extent; they are upper bounds of the true distance, because they were looked for in this plane only, and 0 where
    the image itself is misclassified.

    Attributes:
        classes: predicted classes, int64 (P, P).
        margins: logit of the label minus the largest other, float64 (P, P).
        inside: which points lie in [0, 1], bool (P, P).
        offsets: coordinates of rows and columns, float64 (P,).
        ascent: (C, H, W), direction of the loss gradient, of norm 1.
        side: (C, H, W), random direction orthogonal to it, of norm 1.
        image: (C, H, W), the image at the centre.
        label: the right class; the prediction where none was given.
        prediction: the class of the image itself.
        extent: half the side of the square.
        norm: "l2" or "linf".
        clip: whether points outside [0, 1] were clipped before the model saw them.
        seed: of the random direction.
        along_gradient: distances along + and - the loss gradient.
        along_side: distances along + and - the random direction.
        least: the least distance over 360 rays in the plane.
        least_at: the point (across, along) where it was found.
    """

    classes: Tensor = field(repr=False)
    margins: Tensor = field(repr=False)
    inside: Tensor = field(repr=False)
    offsets: Tensor = field(repr=False)
    ascent: Tensor = field(repr=False)
    side: Tensor = field(repr=False)
    image: Tensor = field(repr=False)
    label: int
    prediction: int
    extent: float
    norm: Norm
    clip: bool
    seed: int
    along_gradient: tuple[float, float]
    along_side: tuple[float, float]
    least: float
    least_at: tuple[float, float]

    @property
    def share(self) -> float:
        """Share of the square, in [0, 1], that is classified as the label."""
        return float((self.classes == self.label).double().mean())

    @property
    def classes_met(self) -> int:
        """Number of classes that are predicted somewhere in the square."""
        return len(set(self.classes.flatten().tolist()))

    def figure(
        self, *, class_names: Sequence[str] | None = None, title: str | None = None, axes: Axes | None = None
    ) -> Figure:
        """Draw the regions of the classes, the boundary of the right one, the image and the least distance.

        Args:
            class_names: names for the legend, one per class; None takes the numbers.
            title: what stands above; None says which class is the right one.
            axes: draw into these, without a legend, instead of a new figure.
        """
        return drawing.one(self, class_names, title, axes)


@dataclass(frozen=True, kw_only=True, eq=False)
class BoundaryGrid:
    """Decision boundaries of several models around several images, all with the same extent.

    Attributes:
        models: names, one per column.
        boundaries: a tuple per image of one boundary per model.
    """

    models: tuple[str, ...]
    boundaries: tuple[tuple[DecisionBoundary, ...], ...] = field(repr=False)

    def figure(self, *, class_names: Sequence[str] | None = None, title: str | None = None) -> Figure:
        """Draw a row per image, the image itself first, and a column per model, with one legend for all."""
        return drawing.grid(self.models, self.boundaries, class_names, title)


def decision_boundary(
    model: Model,
    image: Tensor,
    label: int | None = None,
    *,
    extent: float | None = None,
    points: int = 61,
    norm: Norm = "l2",
    clip: bool = True,
    random: ImageRandom | None = None,
    batch_size: int = 256,
) -> DecisionBoundary:
    """Classify a square of images around `image`, spanned by the gradient of the loss and a random direction.

    The vertical axis is the direction in which the cross-entropy rises fastest, g1 = gradient / norm; the horizontal
    one is a random direction orthogonal to it. With `norm="linf"` both are sign vectors, so that the axes read as
    eps; distances then are those of Linf. Models are compared at equal `extent`: see `decision_boundaries`. The model
    is evaluated in eval mode, and left as it was.

    Args:
        model: images (N, C, H, W) in [0, 1] to logits (N, K).
        image: (C, H, W) or (1, C, H, W), floats in [0, 1].
        label: the right class; None takes the prediction.
        extent: half the side of the square, in the norm; None takes four times the distance at which the label is
            lost along the gradient, at most a tenth of sqrt(C * H * W) (0.1 for "linf").
        points: of the map per side, at least 3; an odd number has the image itself in the middle.
        norm: "l2" or "linf".
        clip: bring pixels into [0, 1] before the model sees them; False shows the model what lies outside, hatched.
        random: the stream of the random direction; None means seed 0, so that a picture repeats.
        batch_size: images per forward pass; it changes nothing but the memory.

    Warns:
        UserWarning: if the gradient is zero; a random direction takes its place.

    Raises:
        TypeError: if `image` is not a float tensor or the model does not return one.
        ValueError: if `image`, `label` or a setting is out of range.

    Examples:
        >>> model = lambda images: images.flatten(1)[:, :2] * 4
        >>> boundary = decision_boundary(model, torch.tensor([[[0.8, 0.5]]]), extent=0.4)
        >>> boundary.label, round(boundary.least, 2), boundary.classes_met  # 0.3 / sqrt(2)
        (0, 0.21, 2)
    """
    image = _check_image(image)
    _check_settings(extent, points, norm, batch_size)
    random = (ImageRandom(0) if random is None else random).of(image[None])
    with evaluating(model, image.device):
        plane, prediction = _plane(model, image, label, norm, clip, random, batch_size)
        extent = _default_extent(plane, prediction) if extent is None else extent
        return _map(plane, prediction, extent, points, random.seed)


def decision_boundaries(
    models: Mapping[str, Model],
    images: Tensor,
    labels: Tensor | None = None,
    *,
    extent: float | None = None,
    points: int = 61,
    norm: Norm = "l2",
    clip: bool = True,
    random: ImageRandom | None = None,
    batch_size: int = 256,
) -> BoundaryGrid:
    """Compare several models around several images, in squares of one and the same extent.

    Args:
        models: a name and a model, images (N, C, H, W) in [0, 1] to logits (N, K), for each column.
        images: (N, C, H, W), floats in [0, 1], one per row.
        labels: right classes, int64 (N,); None takes each model's own predictions.
        extent: half the side of all squares; None takes the largest of those that `decision_boundary` would choose.
        points: see `decision_boundary`, as for all that follow.
        norm: "l2" or "linf".
        clip: bring pixels into [0, 1] before the model sees them.
        random: streams of the random directions; None means seed 0 and ids 0..N-1.
        batch_size: images per forward pass.

    Raises:
        TypeError: if `images` is not a float tensor or a model does not return one.
        ValueError: if there is no model or no image, or something is out of range.
    """
    if not models:
        raise ValueError("decision_boundaries needs at least one model: {'name': model}")
    if images.ndim != 4 or not len(images):
        raise ValueError(f"images must have shape (N, C, H, W) with N >= 1, got {tuple(images.shape)}")
    if labels is not None and labels.shape != (len(images),):
        raise ValueError(f"labels must have shape ({len(images)},), one per image, got {tuple(labels.shape)}")
    _check_settings(extent, points, norm, batch_size)
    streams = (ImageRandom(0) if random is None else random).of(images)
    checked = [_check_image(image) for image in images]
    rows: list[list[tuple[Model, Plane, int]]] = []
    for i, image in enumerate(checked):
        rows.append([])
        for model in models.values():
            with evaluating(model, image.device):
                label = None if labels is None else int(labels[i])
                rows[-1].append((model, *_plane(model, image, label, norm, clip, streams[i : i + 1], batch_size)))
    if extent is None:
        extents = []
        for model, plane, prediction in (cell for row in rows for cell in row):
            with evaluating(model, plane.image.device):
                extents.append(_default_extent(plane, prediction))
        extent = max(extents)
    boundaries: list[tuple[DecisionBoundary, ...]] = []
    for row in rows:
        cells = []
        for model, plane, prediction in row:
            with evaluating(model, plane.image.device):
                cells.append(_map(plane, prediction, extent, points, streams.seed))
        boundaries.append(tuple(cells))
    return BoundaryGrid(models=tuple(models), boundaries=tuple(boundaries))


def _plane(
    model: Model, image: Tensor, label: int | None, norm: Norm, clip: bool, random: ImageRandom, batch_size: int
) -> tuple[Plane, int]:
    """The plane around an image, and the prediction for the image itself."""
    with torch.no_grad():
        logits = logits_of(model, image[None])
    prediction, classes = int(logits.argmax(1)), logits.shape[1]
    label = prediction if label is None else int(label)
    if not 0 <= label < classes:
        raise ValueError(f"label must lie in 0..{classes - 1}, since the model returns {classes} logits, got {label}")
    ascent, side = directions(model, image, label, norm, random)
    plane = Plane(
        model=model, image=image, label=label, ascent=ascent, side=side, norm=norm, clip=clip, batch_size=batch_size
    )
    return plane, prediction


def _default_extent(plane: Plane, prediction: int) -> float:
    """Four times the distance along the gradient, at most a tenth of the longest possible change."""
    most = 0.1 if plane.norm == "linf" else 0.1 * math.sqrt(plane.image.numel())
    if prediction != plane.label:
        return most
    # Sixteen halvings: the distance may be a small part of the longest change, and one ray costs little.
    distance = float(plane.crossings(torch.tensor([[0.0, 1.0]], dtype=torch.float64), most, halvings=16))
    return min(4 * distance, most)


def _map(plane: Plane, prediction: int, extent: float, points: int, seed: int) -> DecisionBoundary:
    offsets = (torch.arange(points, dtype=torch.float64) * 2 - (points - 1)) * (extent / (points - 1))
    along, across = torch.meshgrid(offsets, offsets, indexing="ij")
    grid = torch.stack([across.flatten(), along.flatten()], dim=1)
    classes, margins, inside = plane.look(grid)
    if prediction == plane.label:
        axes = torch.tensor([[0.0, 1.0], [0.0, -1.0], [1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
        up, down, right, left = plane.crossings(axes, extent).tolist()
        least, least_at = _nearest(plane, extent, grid[classes != plane.label], 2 * extent / (points - 1))
        for length, axis in zip((up, down, right, left), axes.tolist(), strict=True):
            if length < least:
                least, least_at = length, (axis[0] * length, axis[1] * length)
    else:
        up = down = right = left = least = 0.0
        least_at = (0.0, 0.0)
    return DecisionBoundary(
        classes=classes.view(points, points),
        margins=margins.view(points, points),
        inside=inside.view(points, points),
        offsets=offsets,
        ascent=plane.ascent.cpu(),
        side=plane.side.cpu(),
        image=plane.image.cpu(),
        label=plane.label,
        prediction=prediction,
        extent=extent,
        norm=plane.norm,
        clip=plane.clip,
        seed=seed,
        along_gradient=(up, down),
        along_side=(right, left),
        least=least,
        least_at=least_at,
    )


def _nearest(plane: Plane, extent: float, wrong: Tensor, spacing: float) -> tuple[float, tuple[float, float]]:
    """The least distance over all rays, looked for from just inside the nearest `wrong` point (M, 2) of the map."""
    length = plane.length(wrong)
    if not (length <= extent).any():
        return math.inf, (math.inf, math.inf)
    return plane.nearest(extent, max(0.0, float(length.min()) - 2 * spacing))


def _check_image(image: Tensor) -> Tensor:
    if not isinstance(image, Tensor):
        raise TypeError(f"image must be a torch.Tensor (C, H, W), got {type(image).__name__}")
    if image.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"image must be float32 or float64 in [0, 1], got {image.dtype}: pass image / 255 for 8 bits")
    if image.ndim == 4 and len(image) == 1:
        image = image[0]
    if image.ndim != 3:
        raise ValueError(
            f"image must have shape (C, H, W), got {tuple(image.shape)}: decision_boundaries takes several images"
        )
    if image.numel() < 2:
        raise ValueError("image has a single pixel, which spans no plane")
    low, high = (float(bound) for bound in image.detach().aminmax())
    if not (low >= 0 and high <= 1):  # so written that NaN is refused as well
        raise ValueError(
            f"image must lie in [0, 1], got [{low:.4g}, {high:.4g}]: put the mean/std step inside the model "
            "(robust_models.Normalize)"
        )
    return image.detach()


def _check_settings(extent: float | None, points: int, norm: str, batch_size: int) -> None:
    if extent is not None and not (math.isfinite(extent) and extent > 0):
        raise ValueError(f"extent must be a positive number, or None to have it chosen, got {extent}")
    if points < 3:
        raise ValueError(f"points must be at least 3 per side, got {points}")
    if norm not in ("l2", "linf"):
        raise ValueError(f'norm must be "l2" or "linf", got {norm!r}')
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
