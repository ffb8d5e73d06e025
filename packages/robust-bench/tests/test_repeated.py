"""Several random starts: each with its own losses, the same whatever the batch."""

import pytest
import torch
from robust_attacks import FGSM, PGD, ImageRandom, Linf
from robust_bench import evaluate
from robust_bench.conditions import Attacked
from robust_bench.conditions.repeated import Repeated, loss_column
from torch.nn import functional

FEW = PGD(threat=Linf(eps=0.12), steps=2, step_size=0.02)
ENOUGH = PGD(threat=Linf(eps=0.12), steps=12, step_size=0.024)


def measured(condition, model, data, batch_size=64, seed=0):
    found = []
    for rows in torch.arange(len(data)).split(batch_size):
        images, labels = (tensor[rows] for tensor in data.tensors)
        found.append(condition.measure(model.eval(), images, labels, ImageRandom(seed, rows)))
    return type(found[0]).joined(found)


def test_enough_steps_reach_the_worst_loss_from_every_start(model, grey):
    """The mean of a grey image moves by eps towards the other class; with logits (-s, s) the loss is log(1 + e^2s)."""
    found = measured(Repeated(attack=ENOUGH, starts=4), model, grey)
    images, labels = grey.tensors
    sign = 1.0 - 2.0 * labels
    moved = (images.double().mean(dim=(1, 2, 3)) + 0.12 * sign).clamp(0, 1)
    expected = functional.softplus(2 * 20 * (moved - 0.5) * sign)
    for start in range(4):
        torch.testing.assert_close(found.more[loss_column(start)].double(), expected, rtol=1e-4, atol=1e-5)
    clean = (images.double().mean(dim=(1, 2, 3)) > 0.5) == labels
    assert torch.equal(found.right, clean & ((moved > 0.5) == labels))


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_every_start_is_an_attack_of_its_own_image_by_image(model, grey, batch_size):
    """One image and one start after another, by hand."""
    found = measured(Repeated(attack=FEW, starts=3), model, grey, batch_size, seed=5)
    images, labels = grey.tensors
    for start in range(3):
        for image in range(21):
            random = ImageRandom(5 + 1_000_003 * start, torch.tensor([image]))
            made = FEW(model, images[image : image + 1], labels[image : image + 1], random=random)
            with torch.no_grad():
                loss = functional.cross_entropy(model(made), labels[image : image + 1])
            assert float(found.more[loss_column(start)][image]) == pytest.approx(float(loss), rel=1e-5, abs=1e-6)
    losses = torch.stack([found.more[loss_column(start)] for start in range(3)])
    assert bool((losses.std(dim=0) > 0).any())


def test_one_start_is_the_plain_attack(model, grey):
    conditions = (Attacked(attack=FEW), Repeated(attack=FEW, starts=1))
    plain, repeated = evaluate(model, grey, conditions=conditions, seed=2).rows
    assert repeated.correct == plain.correct


def test_the_answer_is_that_of_the_worst_start(model, grey):
    found = measured(Repeated(attack=FEW, starts=5), model, grey)
    losses = torch.stack([found.more[loss_column(start)] for start in range(5)]).amax(dim=0)
    confidences = found.confidences.double()
    own = torch.where(found.predictions == grey.tensors[1], confidences, 1 - confidences)  # of two classes
    few = losses < 5  # where a float holds the rest of the probability
    assert int(few.sum()) > 15
    torch.testing.assert_close(-own[few].log().float(), losses[few], rtol=1e-3, atol=1e-5)


def test_settings_and_label_say_how_often():
    condition = Repeated(attack=FEW, starts=20)
    assert condition.label == "PGD-2, Linf 0.12, 20 starts"
    assert (condition.settings["kind"], condition.settings["starts"]) == ("repeated attack", 20)
    assert Repeated(attack=FEW, starts=1).label == "PGD-2, Linf 0.12, 1 start"


def test_starts_that_would_all_be_the_same_are_refused():
    with pytest.raises(ValueError, match="starts must be at least 1, got 0"):
        Repeated(attack=FEW, starts=0)
    with pytest.raises(ValueError, match="3 starts of an attack without random_start are the same"):
        Repeated(attack=FGSM(threat=Linf(eps=0.1), random_start=False), starts=3)
