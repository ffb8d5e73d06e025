"""Folders of images in tar files."""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from robust_bench.datasets.class_map import ClassMap
from robust_bench.datasets.folder import in_natural_order
from robust_bench.datasets.labelled_folder import Treatment
from robust_bench.datasets.picture import is_picture
from robust_bench.datasets.tar_file import Member, tar_members
from robust_bench.datasets.tar_images import Labelled, TarImages
from robust_bench.datasets.tar_shards import find_shards


def tar_folders(
    data: str | Path, pattern: str = "", *, class_map: ClassMap | None = None, preprocess: Treatment
) -> TarImages:
    """Open tar files that hold images in class folders, or one tar file for each class.

    The layouts of timm's reader of tar files: the class of an image is the folder that it lies in, and where it lies in
    none, the tar file's name. timm's reader itself keeps files open that worker processes would then share, and can
    write what it found beside the data as a pickle.

    Args:
        data: a folder with tar files, one tar file, or a pattern of tar files.
        pattern: of the tar files in the folder; see `find_shards`.
        class_map: the label of every class; None numbers the classes in the order of their names.
        preprocess: what is done to the images.

    Raises:
        FileNotFoundError: if there are no tar files.
        ValueError: if a tar file is damaged or holds others, an image is in it twice, or a class is not in the map. The
            message names the tar file.
    """
    shards = find_shards(Path(data), pattern)
    found = [(number, member) for number, shard in enumerate(shards) for member in _images(shard)]
    classes = in_natural_order(list({_class_of(member, shards[number]) for number, member in found}))
    labels: Mapping[str, int] = {
        name: label if class_map is None else class_map.label(name, of=f"{data}") for label, name in enumerate(classes)
    }
    return TarImages(
        shards,
        (Labelled(number, member, labels[_class_of(member, shards[number])]) for number, member in found),
        num_classes=len(classes) if class_map is None else class_map.num_classes,
        preprocess=preprocess,
    )


def _class_of(member: Member, shard: Path) -> str:
    return PurePosixPath(member.name).parent.name or shard.stem


def _images(shard: Path) -> list[Member]:
    """The images in a tar file, in the order in which they lie there."""
    members = [member for member in tar_members(shard) if not _is_hidden(member.name)]
    if inner := [member.name for member in members if member.name.lower().endswith(".tar")]:
        raise ValueError(f"the tar file {shard} holds other tar files, e.g. {inner[0]}: unpack it once")
    images = [member for member in members if is_picture(PurePosixPath(member.name).name)]
    names = {member.name for member in images}
    if len(names) != len(images):
        twice = next(name for name in names if sum(member.name == name for member in images) > 1)
        raise ValueError(f"the tar file {shard} has {twice} twice: was something added to it again?")
    return images


def _is_hidden(name: str) -> bool:
    return any((part.startswith(".") and part != ".") or part == "__MACOSX" for part in PurePosixPath(name).parts)
