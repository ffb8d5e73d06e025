"""Order, held-out part and augmentation of the training images."""

import random

import pytest
import torch
from PIL import Image
from robust_bench.datasets import digits
from robust_train.data import load_data
from torch.utils.data import TensorDataset


def rows(images):
    return {tuple(image.flatten().tolist()) for image in images}


def test_the_held_out_images_are_never_trained_on_and_come_from_the_training_set(tiny):
    data = load_data(tiny)
    everything = digits("train").tensors[0]
    assert data.sizes == [1212, 135]
    held_out = data.validation.tensors[0]
    trained = torch.cat([images for epoch in range(3) for images, _, _ in data.batches(epoch)])
    duplicates = len(everything) - len(rows(everything))
    assert len(rows(trained) & rows(held_out)) <= duplicates
    assert rows(trained) | rows(held_out) == rows(everything)
    assert not rows(held_out) & rows(digits("test").tensors[0]) - rows(everything)


def test_the_held_out_images_depend_on_the_seed_alone(tiny):
    first = load_data(tiny).validation.tensors[0]
    assert torch.equal(first, load_data(tiny.replace(batch_size=7, epochs=9)).validation.tensors[0])
    assert not torch.equal(first, load_data(tiny.replace(seed=1)).validation.tensors[0])


def test_every_epoch_has_every_image_once_in_an_order_of_its_own(tiny):
    data = load_data(tiny)
    epochs = [torch.cat([images for images, _, _ in data.batches(epoch)]) for epoch in (0, 0, 1)]
    assert torch.equal(epochs[0], epochs[1])
    assert not torch.equal(epochs[0], epochs[2])
    assert torch.equal(epochs[0].flatten(1).sum(1).sort().values, epochs[2].flatten(1).sum(1).sort().values)


def test_an_epoch_can_be_entered_in_its_middle(tiny, folder_recipe, pictures):
    for data in (load_data(tiny), load_data(folder_recipe, pictures)):
        whole = list(data.batches(1))
        assert len(whole) == data.updates
        for (images, labels, _), (expected, expected_labels, _) in zip(data.batches(1, skip=1), whole[1:], strict=True):
            assert torch.equal(images, expected)
            assert torch.equal(labels, expected_labels)


def test_the_last_batch_is_smaller_or_left_out(tiny):
    data = load_data(tiny)
    assert data.updates == 5
    assert [len(images) for images, _, _ in data.batches(0)] == [256, 256, 256, 256, 188]
    without = load_data(tiny.replace(**{"data.drop_last": True}))
    assert [len(images) for images, _, _ in without.batches(0)] == [256] * 4
    assert without.updates == 4


def test_a_folder_gives_augmented_pixels_in_the_unit_box(folder_recipe, pictures):
    data = load_data(folder_recipe, pictures)
    assert data.sizes == [9, 3]
    first, again, later = ([*data.batches(epoch)] for epoch in (0, 0, 1))
    images = torch.cat([batch for batch, _, _ in first])
    assert images.shape == (9, 3, 8, 8)
    assert images.min() >= 0
    assert images.max() <= 1
    assert torch.equal(images, torch.cat([batch for batch, _, _ in again]))
    assert not rows(images) & rows(torch.cat([batch for batch, _, _ in later]))
    assert {label for _, labels, _ in first for label in labels.tolist()} == {0, 1}


def test_a_folder_without_augmentation_gives_exactly_its_pixels(tiny, folder_recipe, tmp_path):
    """uint8 0..255 / 255, without resampling: mean 0 and std 1 leave the pixels alone."""
    pixels = torch.arange(192, dtype=torch.uint8).view(8, 8, 3)
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for index in range(2):
            Image.fromarray(pixels.numpy()).save(tmp_path / label / f"{index}.png")
    plain = folder_recipe.replace(**{"data.scale": [1, 1], "data.flip": 0, "data.color_jitter": 0})
    expected = pixels.permute(2, 0, 1).float() / 255
    data = load_data(plain, tmp_path)
    for images in (next(data.batches(0))[0][0], data.validation[0][0]):
        torch.testing.assert_close(images, expected, rtol=0, atol=1e-7)


def test_the_number_of_workers_changes_nothing(folder_recipe, pictures):
    alone, helped = (load_data(folder_recipe, pictures, workers=workers) for workers in (0, 2))
    for (images, labels, _), (expected, expected_labels, _) in zip(helped.batches(0), alone.batches(0), strict=True):
        assert torch.equal(images, expected)
        assert torch.equal(labels, expected_labels)


def test_the_global_random_states_stay(folder_recipe, pictures):
    data = load_data(folder_recipe, pictures)
    torch_state, python_state = torch.get_rng_state(), random.getstate()
    list(data.batches(0))
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert random.getstate() == python_state


def test_data_that_do_not_agree_with_the_recipe(tiny, folder_recipe, pictures, tmp_path):
    with pytest.raises(
        ValueError, match=r"model\.num_classes is 3, but the data have 10: set model\.num_classes to 10"
    ):
        load_data(tiny.replace(**{"model.num_classes": 3}))
    with pytest.raises(ValueError, match=r"model\.in_chans is 3, but the data have 1"):
        load_data(tiny.replace(**{"model.in_chans": 3}))
    with pytest.raises(ValueError, match="the digits are embedded: leave the data folder out"):
        load_data(tiny, tmp_path)
    with pytest.raises(ValueError, match="say where it is"):
        load_data(folder_recipe)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_data(folder_recipe, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no class folders"):
        load_data(folder_recipe, tmp_path / "empty")
    with pytest.raises(ValueError, match="9 training images do not fill a batch of 10: make batch_size smaller"):
        load_data(folder_recipe.replace(**{"data.drop_last": True, "batch_size": 10}), pictures)


def test_the_digits_stay_in_memory(tiny):
    assert isinstance(load_data(tiny).training, TensorDataset)


def test_negative_workers_are_refused(tiny):
    with pytest.raises(ValueError, match="workers must not be negative, got -1"):
        load_data(tiny, workers=-1)


def test_the_smallest_batch_of_an_epoch(tiny):
    sizes = {size: load_data(tiny.replace(batch_size=size)).smallest_batch for size in (256, 303, 1211)}
    assert sizes == {256: 188, 303: 303, 1211: 1}
    assert load_data(tiny.replace(**{"batch_size": 1211, "data.drop_last": True})).smallest_batch == 1211


def test_the_fingerprint_tells_other_images_of_the_same_number(folder_recipe, pictures):
    """Another content of the same size is not seen: reading all pixels would take too long."""
    folder = pictures / "train"
    first = load_data(folder_recipe, pictures).fingerprint
    assert load_data(folder_recipe.replace(seed=9), folder).fingerprint == first  # wherever it lies, whatever the seed
    assert first["number of images"] == 12
    assert first["classes"] == ["cat", "dog"]
    (folder / "cat" / "notes.txt").write_text("not an image")
    assert load_data(folder_recipe, pictures).fingerprint == first
    image = folder / "cat" / "0.png"
    image.rename(folder / "cat" / "00.png")
    renamed = load_data(folder_recipe, pictures).fingerprint
    (folder / "cat" / "00.png").rename(image)
    image.write_bytes(image.read_bytes() + b"longer")
    resized = load_data(folder_recipe, pictures).fingerprint
    image.write_bytes(image.read_bytes()[:-6])
    (folder / "dog").rename(folder / "emu")
    other = load_data(folder_recipe, pictures).fingerprint
    assert len({str(one) for one in (first, renamed, resized, other)}) == 4


def test_the_fingerprint_of_the_digits_is_that_of_their_content(tiny, monkeypatch):
    first = load_data(tiny).fingerprint
    images, labels = digits("train").tensors
    changed = TensorDataset(images.clone(), labels)
    changed.tensors[0][3, 0, 2, 2] += 1 / 16
    monkeypatch.setattr("robust_train.data.digits", lambda _: changed)
    assert load_data(tiny).fingerprint != first
