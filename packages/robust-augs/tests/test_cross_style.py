import pytest
import torch
from robust_augs.cross_style import CrossStyle
from robust_augs.style import StyleDraws, StyleTransfer
from robust_augs.style_bank import StyleBank
from torch import nn
from torch.nn.functional import cross_entropy


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def swap(alpha=0.5):
    return StyleTransfer(nn.Identity(), nn.Identity(), alpha=alpha)


IMAGES = torch.rand(4, 3, 6, 6, generator=generator())
DRAWS = StyleDraws(style=torch.tensor([1, 0, 2, 0]))


def test_labels_are_mixed_by_hand():
    cross = CrossStyle(swap(), gamma=0.75, num_classes=3)
    images, labels = cross.apply(IMAGES, torch.tensor([0, 1, 2, 1]), DRAWS)
    expected = [[0.75, 0.25, 0], [0.25, 0.75, 0], [0, 0, 1], [0.25, 0.75, 0]]
    torch.testing.assert_close(labels, torch.tensor(expected))
    assert torch.equal(images, swap().apply(IMAGES, DRAWS))


def test_probabilities_are_mixed_likewise():
    cross = CrossStyle(swap(), num_classes=3)
    indices = torch.tensor([0, 1, 2, 1])
    probabilities = torch.nn.functional.one_hot(indices, 3).double()
    mixed = CrossStyle(swap()).apply(IMAGES, probabilities, DRAWS)[1]
    assert mixed.dtype == torch.float64
    torch.testing.assert_close(mixed.float(), cross.apply(IMAGES, indices, DRAWS)[1])
    torch.testing.assert_close(mixed.sum(1), torch.ones(4, dtype=torch.float64))


def test_the_loss_of_the_paper_is_that_of_the_mixed_labels_and_of_the_pair():
    cross = CrossStyle(swap(), num_classes=5)
    labels, logits = torch.tensor([0, 4, 2, 1]), torch.randn(4, 5, generator=generator(1), dtype=torch.float64)
    published = 0.8 * cross_entropy(logits, labels, reduction="none")
    published += 0.2 * cross_entropy(logits, labels[DRAWS.style], reduction="none")
    mixed = cross.apply(IMAGES, labels, DRAWS)[1]
    torch.testing.assert_close(cross_entropy(logits, mixed.double(), reduction="none"), published, rtol=1e-6, atol=0)
    shape, style, weight = cross.label_pair(labels, DRAWS)
    by_pair = (1 - weight) * cross_entropy(logits, shape, reduction="none")
    by_pair += weight * cross_entropy(logits, style, reduction="none")
    torch.testing.assert_close(by_pair, published, rtol=1e-6, atol=0)


def test_the_styles_are_those_of_the_transfer():
    cross = CrossStyle(swap(), num_classes=8)
    images, labels = cross(IMAGES, torch.arange(4), generator=generator(3))
    assert torch.equal(images, swap()(IMAGES, generator=generator(3)))
    partner = swap().sample(IMAGES.shape, generator(3)).style
    for i in range(4):
        expected = torch.zeros(8)
        expected[i] += 0.8
        expected[partner[i]] += 0.2
        torch.testing.assert_close(labels[i], expected)


def test_neither_input_changes():
    images, labels = IMAGES.clone(), torch.eye(4)
    CrossStyle(swap())(images, labels, generator=generator())
    assert torch.equal(images, IMAGES)
    assert torch.equal(labels, torch.eye(4))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.tensor([0, 1, 2]), r"\(4,\) or probabilities \(4, classes\) for 4 images, got torch.int64 \(3,\)"),
        (torch.rand(4), "class indices"),
        (torch.ones(4, 3, dtype=torch.int64), "got torch.int64"),
        (torch.tensor([0, 1, 2, 3]), r"labels must lie in 0..2, got 0..3"),
        (torch.tensor([0, -1, 2, 2]), r"labels must lie in 0..2, got -1..2"),
    ],
    ids=["too few", "floats", "a table of indices", "too large", "negative"],
)
def test_labels_that_do_not_fit_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        CrossStyle(swap(), num_classes=3)(IMAGES, labels)


def test_the_number_of_classes_is_asked_for():
    with pytest.raises(ValueError, match=r"say how many classes there are, CrossStyle\(num_classes=...\)"):
        CrossStyle(swap())(IMAGES, torch.arange(4))


def test_paintings_have_no_labels():
    bank = StyleBank.encode(nn.Identity(), [IMAGES])
    with pytest.raises(ValueError, match="the styles must come from the batch"):
        CrossStyle(StyleTransfer(nn.Identity(), nn.Identity(), styles=bank))


def test_a_gamma_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"gamma must lie in \[0, 1\], got -0.1"):
        CrossStyle(swap(), gamma=-0.1)
