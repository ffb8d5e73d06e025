"""CrossNorm: stored cases, the law of exchanged statistics, its boxes, its draws, and old defects."""

import pytest
import torch
from robust_models.layers import cross_norm
from robust_models.layers.cross_norm import CrossNorm, crossnorm_active, exchange_style
from torch import nn


def maps(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def active(**options):
    layer = CrossNorm(generator=torch.Generator().manual_seed(0), **options).train()
    layer.active = True
    return layer


@pytest.mark.shared_data
@pytest.mark.parametrize("lam", ["", "_lam0.3"])
@pytest.mark.parametrize("crop", ["neither", "style", "content", "both"])
def test_the_stored_numbers(golden, named, crop, lam):
    case = golden("modules").stored["cases"][f"crossnorm_{crop}{lam}"]
    x = 2 * torch.from_numpy(named("1:x", 4 * 6 * 7 * 9)).view(4, 6, 7, 9) + 0.5
    found = exchange_style(
        x, torch.tensor(case["perm"]), style_box=case["style_box"], content_box=case["content_box"], lam=case["lam"]
    )
    expected = torch.tensor(case["output"]["data"], dtype=torch.float64).view(x.shape)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


def test_whole_maps_get_the_statistics_of_their_partner():
    x, order = 3 * maps(4, 3, 9, 8) - 1, torch.tensor([2, 0, 3, 1])
    found = exchange_style(x, order)
    torch.testing.assert_close(found.mean((2, 3)), x.mean((2, 3))[order])
    torch.testing.assert_close(found.std((2, 3)), x.std((2, 3))[order], rtol=1e-4, atol=0)


def test_boxes_say_where_the_style_comes_from_and_where_it_goes():
    x, order = maps(4, 3, 9, 8), torch.tensor([2, 0, 3, 1])
    found = exchange_style(x, order, style_box=(1, 2, 5, 8), content_box=(0, 3, 4, 6))
    inside = torch.zeros(9, 8, dtype=torch.bool)
    inside[0:4, 3:6] = True
    assert torch.equal(found[..., ~inside], x[..., ~inside])
    expected = x[order][..., 1:5, 2:8].mean((2, 3))
    torch.testing.assert_close(found[..., 0:4, 3:6].mean((2, 3)), expected)


def test_lam_mixes_and_channels_are_shuffled():
    x, order, channels = maps(4, 3, 9, 8), torch.tensor([2, 0, 3, 1]), torch.tensor([1, 2, 0])
    styled = exchange_style(x, order)
    torch.testing.assert_close(exchange_style(x, order, lam=0.25), 0.25 * x + 0.75 * styled)
    found = exchange_style(x, order, channels=channels)
    torch.testing.assert_close(found.mean((2, 3)), x.mean((2, 3))[order][:, channels])
    layer = active(shuffle_channels=True)
    x = torch.arange(3.0).view(1, 3, 1, 1) + 0.01 * maps(4, 3, 6, 6).float()
    means = layer(x).mean((0, 2, 3)).round()
    assert sorted(means.tolist()) == [0, 1, 2]
    assert any(layer(x).mean((0, 2, 3)).round().tolist() != [0, 1, 2] for _ in range(9))


def test_the_style_is_differentiated():
    x = maps(3, 2, 4, 4).requires_grad_()
    torch.autograd.gradcheck(lambda x: exchange_style(x, torch.tensor([1, 2, 0]), style_box=(0, 0, 3, 2)), x)
    (gradient,) = torch.autograd.grad(exchange_style(x, torch.tensor([1, 2, 0]))[0].sum(), x)
    assert gradient[1].abs().sum() > 0


@pytest.mark.parametrize("crop", ["neither", "style", "content", "both"])
def test_defaults_of_every_crop_work_in_training(crop):
    """The first toolkit asserts on its own defaults and asks NumPy for a name that is gone."""
    x = maps(4, 3, 8, 8).float().requires_grad_()
    found = active(crop=crop)(x)
    assert found.shape == x.shape
    assert not torch.equal(found, x)
    found.square().sum().backward()
    assert torch.isfinite(x.grad).all()


def test_only_in_training_only_while_active_and_not_for_single_pixels():
    layer, x = active(), maps(4, 3, 8, 8)
    assert not torch.equal(layer(x), x)
    assert layer.eval()(x) is x
    layer.train().active = False
    assert layer(x) is x
    layer.active = True
    single = maps(4, 3, 1, 1)
    assert layer(single) is single
    assert torch.isfinite(active(crop="both")(maps(4, 3, 1, 2))).all()
    torch.testing.assert_close(layer(maps(1, 3, 8, 8)), maps(1, 3, 8, 8))  # alone, an image exchanges with itself


def test_boxes_lie_in_the_map_and_their_share_has_its_distribution():
    layer = active(crop="both", box_threshold=0.0)
    boxes = torch.tensor([layer._draw_box(200, 100) for _ in range(4000)]).double()
    top, left, bottom, right = boxes.unbind(1)
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (bottom <= 200).all()
    assert (right <= 100).all()
    # Of a side s = L sqrt(r) with a centre anywhere in L, s - s^2 / (4 L) is inside on average; r is uniform, so that
    # this is L (2 / 3 - 1 / 8). Rounding down takes half a pixel.
    assert abs((bottom - top).mean() - 200 * (2 / 3 - 1 / 8) + 0.5) < 3
    assert abs((right - left).mean() - 100 * (2 / 3 - 1 / 8) + 0.5) < 1.5
    layer = active(crop="both", box_threshold=0.3)
    boxes = [layer._draw_box(20, 10) for _ in range(500)]
    assert min((bottom - top) * (right - left) for top, left, bottom, right in boxes) > 0.3 * 200


def test_impossible_boxes_fall_back_to_the_whole_map(monkeypatch):
    monkeypatch.setattr(cross_norm, "MAX_DRAWS", 3)
    assert active(crop="both", beta=1e-3, box_threshold=0.999)._draw_box(1, 2) == (0, 0, 1, 2)


def test_the_generator_decides_everything():
    layer, x = active(crop="both"), maps(5, 3, 8, 8)
    first = [layer(x) for _ in range(3)]
    layer.generator.manual_seed(0)
    torch.testing.assert_close([layer(x) for _ in range(3)], first, rtol=0, atol=0)
    assert not torch.equal(first[0], first[1])


def test_the_context_switches_and_restores():
    model = nn.Sequential(CrossNorm(), nn.Conv2d(3, 3, 1), CrossNorm()).train()
    model[2].active = True
    x = maps(6, 3, 5, 5).float()
    with crossnorm_active(model):
        assert not torch.equal(model[0](x), x)
        with crossnorm_active(model, False):
            assert model[0](x) is x
            assert model[2](x) is x
        assert not torch.equal(model[0](x), x)
        assert model.eval()[0](x) is x
        model.train()
    assert model[0](x) is x
    assert not torch.equal(model[2](x), x)
    with pytest.raises(ValueError, match="no CrossNorm to switch"), crossnorm_active(nn.Identity()):
        pass


@pytest.mark.parametrize(
    "options", [{"crop": "all"}, {"beta": 0.0}, {"box_threshold": 1.0}, {"lam": 1.5}, {"box_threshold": -0.1}], ids=str
)
def test_settings_out_of_range(options):
    with pytest.raises(ValueError, match=r"got .*"):
        CrossNorm(**options)
