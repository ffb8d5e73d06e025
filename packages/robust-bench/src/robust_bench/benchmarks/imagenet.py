"""ImageNet's validation set, and other images of all its 1000 classes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from robust_bench.answer import Subset
from robust_bench.answers import Answers
from robust_bench.benchmarks.confidence_scores import CALIBRATION, confidence_scores
from robust_bench.benchmarks.data_settings import as_stored, data_settings
from robust_bench.benchmarks.entry import Entry, Options
from robust_bench.benchmarks.opening import opening
from robust_bench.datasets.imagenet_classes import IMAGENET, imagenet_indices, numbered_fit, numbered_labels
from robust_bench.datasets.labelled_folder import IMAGES, LabelledFolder, Treatment
from robust_bench.datasets.listing import Listing
from robust_bench.metrics import clopper_pearson
from robust_bench.part import TOP5, Benchmark, Found, Part
from robust_bench.preprocess import Preprocess
from robust_bench.result import Row

CLASSES = 1000


def image_part(
    name: str,
    root: Path,
    labels: Mapping[str, int],
    treatment: Treatment,
    *,
    dataset: str,
    images: int,
    wnids: Sequence[str] | None = None,
    also: tuple[str, ...] = (),
) -> Part:
    """Make the part of images of ImageNet's classes, or of some of them.

    Args:
        name: of the part.
        root: what the class folders lie in.
        labels: of the class folders.
        treatment: what is done to the images.
        dataset: name of the data set.
        images: how many are published.
        wnids: the classes in the order of the labels, where they are not all 1000: the model chooses among these.
        also: further columns of the records.
    """
    answer = None if wnids is None else Subset(indices=imagenet_indices(wnids))
    classes = CLASSES if wnids is None else len(wnids)
    return Part(
        name=name,
        data=LabelledFolder(root, labels, preprocess=treatment),
        num_classes=classes,
        answer=answer,
        also=also,
        settings=data_settings(
            dataset=dataset,
            path=root,
            classes=classes,
            images_expected=images,
            treatment=treatment,
            answer=f"among all {CLASSES} classes" if answer is None else answer.text,
        ),
    )


def validation(options: Options) -> Part:
    """Make the part of all validation images, which several benchmarks share."""
    with opening(VALIDATION, options, "val") as root:
        labels = IMAGENET.labels(root)
    treatment = options.preprocess or Preprocess()
    return image_part(
        VALIDATION.name, root, labels, treatment, dataset="ImageNet-1k, validation", images=50_000, also=(TOP5,)
    )


def validation_of(options: Options, wnids: Sequence[str], name: str) -> Part:
    """Make the part of the validation images of some classes, with the model choosing among these."""
    with opening(VALIDATION, options, "val") as root:
        IMAGENET.labels(root)
    return image_part(
        name,
        root,
        {wnid: label for label, wnid in enumerate(wnids)},
        options.preprocess or Preprocess(),
        dataset=f"ImageNet-1k, validation, {len(wnids)} classes",
        images=50 * len(wnids),
        wnids=wnids,
    )


def validation_scores(found: Found) -> Iterator[Row]:
    """Give top-5 accuracy, and how far confidence is from accuracy."""
    for answers in found.get(VALIDATION.name, ())[:1]:
        if TOP5 in answers.more and len(answers):
            yield _top5(answers)
        yield from confidence_scores(answers, CALIBRATION)


def _top5(answers: Answers) -> Row:
    correct, count = int(answers.more[TOP5].sum()), len(answers)
    low, high = clopper_pearson(correct, count)
    return Row(
        benchmark=answers.benchmark,
        condition=answers.condition,
        settings={"kind": "score", "interval": {"method": "Clopper-Pearson"}},
        metric="top5_accuracy",
        value=correct / count,
        low=low,
        high=high,
        count=count,
    )


def _looks_like(path: Path, file: Callable[[str], bool]) -> bool:
    """Whether a folder, or `val` in it, has the 1000 class folders, with such a file in the first."""
    for root in (path, path / "val"):
        if root.is_dir() and IMAGENET.fits(root):
            first = min(IMAGENET.labels(root))
            return file(Listing(path=root, labels={first: 0}, suffixes=IMAGES).name(0).rpartition("/")[2])
    return False


VALIDATION = Entry(
    name="imagenet-val",
    about="ImageNet's validation images: top-1, top-5, calibration",
    source="Russakovsky et al., IJCV 2015, arXiv:1409.0575",
    build=lambda options: Benchmark(name="imagenet-val", parts=(validation(options),), scores=validation_scores),
    scores=validation_scores,
    layout=(
        "Expected DIR/imagenet-val/<wnid>/*.JPEG, all 1000 class folders n01440764 to n15075141, perhaps in val/ of "
        "that folder. The images come from https://image-net.org after registration (ILSVRC 2012, "
        "ILSVRC2012_img_val.tar), and have to be sorted into class folders"
    ),
    folders=("imagenet-val", "imagenet/val", "val"),
    fits=partial(_looks_like, file=lambda name: not name.startswith("sketch_") and not name.endswith(".png")),
)


def _by_wnid(
    name: str,
    *,
    about: str,
    source: str,
    dataset: str,
    images: int,
    stored: bool,
    layout: str,
    folders: tuple[str, ...],
    file: Callable[[str], bool],
) -> Entry:
    """A set of other images of the 1000 classes, in folders named by wnid, `stored` at their final size or not."""

    def build(options: Options) -> Benchmark:
        with opening(entry, options, "val") as root:
            labels = IMAGENET.labels(root)
        treatment = as_stored(options) if stored else (options.preprocess or Preprocess())
        return Benchmark(name=name, parts=(image_part(name, root, labels, treatment, dataset=dataset, images=images),))

    entry = Entry(
        name=name,
        about=about,
        source=source,
        build=build,
        layout=layout,
        folders=folders,
        fits=partial(_looks_like, file=file),
    )
    return entry


def _v2(subset: str) -> Entry:
    """One of the three subsets of ImageNetV2, whose folders are named by number."""
    name = f"imagenet-v2-{subset}"

    def build(options: Options) -> Benchmark:
        with opening(entry, options) as root:
            labels = numbered_labels(root, CLASSES)
        treatment = options.preprocess or Preprocess()
        part = image_part(name, root, labels, treatment, dataset=f"ImageNetV2, {subset}", images=10_000)
        return Benchmark(name=name, parts=(part,))

    entry = Entry(
        name=name,
        about=f"new images chosen as ImageNet's were, subset {subset}: top-1",
        source="Recht et al., ICML 2019, arXiv:1902.10811",
        build=build,
        layout=(
            f"Expected DIR/imagenetv2-{subset}-format-val/<index>/*.jpeg, class folders 0 to 999, which may be padded "
            "with zeros. The archives are linked from https://github.com/modestyachts/ImageNetV2"
        ),
        folders=(f"imagenetv2-{subset}-format-val", name, f"imagenetv2-{subset}"),
        fits=lambda path: subset in path.name and numbered_fit(path, CLASSES),
    )
    return entry


ENTRIES = (
    VALIDATION,
    *(_v2(subset) for subset in ("matched-frequency", "threshold0.7", "top-images")),
    _by_wnid(
        "imagenet-sketch",
        about="black and white sketches of ImageNet's classes: top-1",
        source="Wang et al., NeurIPS 2019, arXiv:1905.13549",
        dataset="ImageNet-Sketch",
        images=50_889,
        stored=False,
        layout=(
            "Expected DIR/imagenet-sketch/<wnid>/*.JPEG, all 1000 class folders. The archive is linked from "
            "https://github.com/HaohanWang/ImageNet-Sketch and unpacks to sketch/"
        ),
        folders=("imagenet-sketch", "sketch"),
        file=lambda name: name.startswith("sketch_"),
    ),
    _by_wnid(
        "stylized-imagenet",
        about="ImageNet's validation images in the style of paintings: top-1",
        source="Geirhos et al., ICLR 2019, arXiv:1811.12231",
        dataset="Stylized-ImageNet",
        images=50_000,
        stored=True,
        layout=(
            "Expected DIR/stylized-imagenet/val/<wnid>/*.png of 224 x 224 pixels, all 1000 class folders. The set is "
            "made from ImageNet by the code at https://github.com/rgeirhos/Stylized-ImageNet"
        ),
        folders=("stylized-imagenet", "Stylized-ImageNet", "stylized_imagenet"),
        file=lambda name: name.endswith(".png"),
    ),
)
