from multiprocessing.reduction import ForkingPickler

import pytest
import torch
from PIL import Image
from robust_augs.stylised_folder import StylisedFolder
from torchvision.transforms.functional import pil_to_tensor

NAMES = ["ant/b.JPEG", "ant/c.d.JPEG", "bee/a.JPEG", "bee/deep/a.png"]
LABELS = [0, 0, 1, 1]


def write(path, level):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (level, level, level)).save(path)


@pytest.fixture
def folders(tmp_path):
    """The i-th image is grey of level 10 i, its copy of 100 + 10 i."""
    clean, stylised = tmp_path / "clean", tmp_path / "stylised"
    for i, name in enumerate(NAMES):
        write(clean / name, 10 * i)
        write((stylised / name).with_suffix(".png"), 100 + 10 * i)
    return clean, stylised


def level(image):
    return int(pil_to_tensor(image).float().mean().round())


def levels(data):
    return [level(data[i][0]) for i in range(len(data))]


def test_both_has_all_images_and_then_all_copies(folders):
    data = StylisedFolder(*folders)
    assert len(data) == 8
    assert levels(data) == [0, 10, 20, 30, 100, 110, 120, 130]
    assert [data[i][1] for i in range(8)] == LABELS + LABELS == data.targets
    assert data.classes == ["ant", "bee"]
    assert level(data[-1][0]) == 130


def test_random_has_each_image_once_in_one_of_its_forms(folders):
    data = StylisedFolder(*folders, mode="random")
    assert len(data) == 4
    assert [value % 100 for value in levels(data)] == [0, 10, 20, 30]
    assert [data[i][1] for i in range(4)] == LABELS == data.targets


def test_the_form_depends_on_seed_epoch_and_index_alone(folders):
    data, again = (StylisedFolder(*folders, mode="random", seed=3) for _ in range(2))
    runs = []
    for epoch in range(100):
        data.set_epoch(epoch)
        runs.append([value >= 100 for value in levels(data)])
    again.set_epoch(7)
    torch.rand(1)
    assert [again[i] is not None and level(again[i][0]) >= 100 for i in (3, 1, 0, 2)] == [
        runs[7][i] for i in (3, 1, 0, 2)
    ]
    taken = torch.tensor(runs).double()
    assert ((taken.mean(0) - 0.5).abs() < 0.25).all()  # five standard deviations
    assert len({tuple(run) for run in runs}) > 8  # images are drawn apart
    other = StylisedFolder(*folders, mode="random", seed=4)
    other_runs = []
    for epoch in range(100):
        other.set_epoch(epoch)
        other_runs.append([value >= 100 for value in levels(other)])
    assert other_runs != runs


def test_workers_that_outlive_an_epoch_see_the_next(folders):
    data = StylisedFolder(*folders, mode="random")
    state = [value for value in vars(data).values() if isinstance(value, torch.Tensor)]
    assert len(state) == 1
    assert state[0].is_shared()  # for workers that are forked
    copy = ForkingPickler.loads(bytes(ForkingPickler.dumps(data)))  # for those that are not
    seen = set()
    for epoch in range(20):
        data.set_epoch(epoch)
        assert levels(copy) == levels(data)
        seen.add(tuple(levels(copy)))
    assert len(seen) > 1


def test_images_are_transformed(folders):
    data = StylisedFolder(*folders, transform=lambda image: image.size)
    assert data[0] == ((8, 8), 0)


def test_missing_copies_are_counted_and_named(folders):
    clean, stylised = folders
    (stylised / "ant/b.png").unlink()
    (stylised / "bee/deep/a.png").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"2 of 4 images of .*clean have no stylised copy, .*ant/b.png, .*bee/deep/a.png: "
    ):
        StylisedFolder(clean, stylised)
    with pytest.raises(
        FileNotFoundError, match=r"4 of 4 images .* stylise_folder\(...\) writes those that are missing"
    ):
        StylisedFolder(clean, stylised / "none")


def test_more_copies_than_images_do_no_harm(folders):
    clean, stylised = folders
    write(stylised / "ant/z.png", 0)
    assert len(StylisedFolder(clean, stylised)) == 8


def test_copies_behind_a_link_to_a_folder_are_found(folders, tmp_path):
    clean, stylised = folders
    (stylised / "bee").rename(tmp_path / "elsewhere")
    (stylised / "bee").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert len(StylisedFolder(clean, stylised)) == 8


def test_two_images_with_one_copy_are_refused(folders):
    clean, stylised = folders
    write(clean / "ant/b.png", 0)
    with pytest.raises(ValueError, match=r"ant/b.JPEG and .*ant/b.png would share the copy .*ant/b.png: rename one"):
        StylisedFolder(clean, stylised)


def test_what_is_no_data_set_is_refused(folders, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder of images at .*none"):
        StylisedFolder(tmp_path / "none", folders[1])
    with pytest.raises(ValueError, match='mode must be "both" or "random", got \'clean\''):
        StylisedFolder(*folders, mode="clean")
    with pytest.raises(IndexError, match="index must be below 8, got 8"):
        StylisedFolder(*folders)[8]
