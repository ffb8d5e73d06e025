import pytest
import torch
from robust_attacks import ImageRandom, Linf
from robust_attacks.patch_noise import OccludedPatches
from robust_attacks.patch_pgd import PatchPGD
from robust_attacks.patch_sensitivity import patch_sensitivity

SHAPE = (1, 16, 16)


def batch(count=20):
    generator = torch.Generator().manual_seed(0)
    return torch.rand((count, *SHAPE), generator=generator), torch.randint(2, (count,), generator=generator)


def test_it_reports_accuracy_and_confidence_of_the_true_class(linear):
    images, labels = batch()
    model = linear(torch.randn(SHAPE, generator=torch.Generator().manual_seed(1)) / 20)
    changes = {
        "attack": PatchPGD(threat=Linf(eps=0.3), patch_size=4, share=0.3),
        "occlusion": OccludedPatches(patch_size=4),
    }
    random = ImageRandom(4, torch.arange(20))
    report = patch_sensitivity(model, images, labels, changes=changes, random=random)
    assert list(report) == ["clean", "attack", "occlusion"]
    for name, result in report.items():
        seen = images if name == "clean" else changes[name](model, images, labels, random=random)
        logits = model(seen).detach()
        assert torch.equal(result.correct, logits.argmax(dim=1) == labels)
        confidence = torch.stack([row.softmax(dim=0)[label] for row, label in zip(logits, labels, strict=True)])
        torch.testing.assert_close(result.confidence, confidence)
        assert result.accuracy == pytest.approx(float(result.correct.double().mean()))
        assert result.mean_confidence == pytest.approx(float(confidence.mean()))
        assert len(result) == 20
    assert report["attack"].mean_confidence < report["clean"].mean_confidence
    assert "20 images" in repr(report["clean"])


def test_by_default_it_is_the_probe_of_the_paper(rows):
    images = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    report = patch_sensitivity(rows((1, 64, 64)), images, torch.tensor([0, 1]), random=ImageRandom(0))
    assert list(report) == ["clean", "attack", "noise", "occlusion"]


def test_logits_that_are_not_finite_are_never_right():
    images, labels = batch(3)

    def model(images):
        logits = torch.stack((images.sum(dim=(1, 2, 3)), -images.sum(dim=(1, 2, 3))), dim=1)
        return torch.cat((logits[:1], logits[1:2] * torch.nan, logits[2:] * torch.inf))

    result = patch_sensitivity(model, images, labels * 0, changes={})["clean"]
    assert result.correct.tolist() == [True, False, False]
    assert result.confidence.isnan().tolist() == [False, True, True]


def test_the_model_is_left_as_it_was():
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.BatchNorm1d(256), torch.nn.Linear(256, 2)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images, labels = batch(4)
    patch_sensitivity(model, images, labels, changes={"attack": PatchPGD(patch_size=4, steps=2)})
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_wrong_calls_are_refused(rows):
    images, labels = batch(2)
    with pytest.raises(ValueError, match='"clean" is the name of the images as they are'):
        patch_sensitivity(rows(SHAPE), images, labels, changes={"clean": OccludedPatches()})
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.2"):
        patch_sensitivity(rows(SHAPE), images, labels + 5, changes={})
    with pytest.raises(ValueError, match=r"images must lie in \[0, 1\]"):
        patch_sensitivity(rows(SHAPE), images - 1, labels)
