import pytest
import torch
from robust_augs.random_style import InceptionInput, RandomStyle, RandomStyleDraws
from torch import nn


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


MEAN = torch.tensor([1.0, -2.0, 0.5])
FACTOR = torch.tensor([[1.0, 0.0], [0.5, 2.0], [-1.0, 0.3]])
COVARIANCE = FACTOR @ FACTOR.T  # of rank 2: there is no Cholesky factor


def shift(images, embedding):
    return images + embedding.mean(1)[:, None, None, None] / 100


def channel_means(images):
    return images.mean((2, 3))


def style(**settings):
    return RandomStyle(shift, channel_means, MEAN, COVARIANCE, **settings)


def test_embeddings_have_the_mean_and_the_covariance():
    random = style()
    z = random.embeddings(random.sample(torch.Size([200_000, 3, 1, 1]), generator()))
    assert ((z.mean(0) - MEAN).abs() < 5 * (COVARIANCE.diag() / 200_000).sqrt()).all()
    torch.testing.assert_close(torch.cov(z.T), COVARIANCE, rtol=0, atol=0.06)
    # One direction has no variance at all.
    flat = torch.linalg.cross(FACTOR[:, 0], FACTOR[:, 1])
    torch.testing.assert_close(z @ flat, (MEAN @ flat).expand(200_000), rtol=0, atol=5e-3)


def test_the_root_is_exact_and_symmetric():
    matrix = torch.randn(6, 4, generator=generator(), dtype=torch.float64)
    root = RandomStyle(shift, channel_means, torch.zeros(6), matrix @ matrix.T).root
    torch.testing.assert_close(root @ root.T, matrix @ matrix.T, rtol=1e-12, atol=1e-7)
    torch.testing.assert_close(root, root.T, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_the_result_is_the_formula(alpha):
    images = 0.3 + 0.4 * torch.rand(4, 3, 5, 5, generator=generator(), dtype=torch.float64)
    normals = torch.randn(4, 3, generator=generator(1), dtype=torch.float64)
    random = style(alpha=alpha)
    values, vectors = torch.linalg.eigh(COVARIANCE.double())
    root = vectors @ values.clamp(min=0).sqrt().diag() @ vectors.T
    embedding = torch.stack(
        [alpha * (root @ n + MEAN) + (1 - alpha) * x.mean((1, 2)) for n, x in zip(normals, images, strict=True)]
    )
    expected = shift(images, embedding).clamp(0, 1)
    result = random.apply(images, RandomStyleDraws(normals=normals))
    torch.testing.assert_close(result, expected, rtol=1e-10, atol=1e-10)


def test_alpha_0_is_the_reconstruction():
    images = torch.rand(4, 3, 5, 5, generator=generator())
    expected = shift(images, channel_means(images)).clamp(0, 1)
    assert torch.equal(style(alpha=0.0)(images, generator=generator()), expected)


def test_a_row_is_a_mean_as_well():
    row = RandomStyle(shift, channel_means, MEAN[None], COVARIANCE)
    images = torch.rand(2, 3, 4, 4)
    assert torch.equal(row(images, generator=generator()), style()(images, generator=generator()))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_shape_and_dtype_come_back_and_the_generator_decides(dtype):
    levels = torch.randint(256, (4, 3, 6, 5), generator=generator(), dtype=torch.uint8)
    images = levels if dtype == torch.uint8 else (levels.double() / 255).to(dtype)
    before, state = images.clone(), torch.get_rng_state()
    result = style()(images, generator=generator(1))
    assert torch.equal(torch.get_rng_state(), state)
    assert (result.shape, result.dtype) == (images.shape, dtype)
    assert torch.equal(images, before)
    assert torch.equal(style()(images, generator=generator(1)), result)
    assert not torch.equal(style()(images, generator=generator(2)), result)


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.spread = nn.BatchNorm2d(3), nn.Linear(3, 3)

    def forward(self, images, embedding):
        return self.norm(images) + self.spread(embedding)[..., None, None]


def test_networks_are_left_as_they_were_and_no_gradient_flows():
    transformer = Transformer()
    before = {name: value.clone() for name, value in transformer.state_dict().items()}
    random = RandomStyle(transformer, channel_means, MEAN, COVARIANCE)
    result = random(torch.rand(4, 3, 6, 6).requires_grad_(), generator=generator())
    assert not result.requires_grad
    assert all(module.training for module in transformer.modules())
    assert all(torch.equal(value, before[name]) for name, value in transformer.state_dict().items())


def test_inception_input_is_imagenets_steps_in_front_of_inceptions():
    images = torch.rand(2, 3, 4, 4, generator=generator(), dtype=torch.float64)
    mean, std = (
        torch.tensor(v, dtype=torch.float64)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    inception = (images - mean) / std * (std / 0.5) + (mean - 0.5) / 0.5
    torch.testing.assert_close(InceptionInput()(images), inception, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("mean", "covariance", "message"),
    [
        (torch.zeros(3), torch.eye(2), r"mean must have shape \(D,\) and covariance \(D, D\), got \(3,\) and \(2, 2\)"),
        (torch.zeros(2, 2), torch.eye(4), r"got \(2, 2\)"),
        (
            torch.tensor(0.5),
            torch.eye(1),
            r"mean must have shape \(D,\) and covariance \(D, D\), got \(\) and \(1, 1\)",
        ),
        (torch.zeros(2), torch.tensor([[1.0, 0.5], [0.0, 1.0]]), "finite and symmetric"),
        (torch.zeros(2), torch.tensor([[1.0, torch.nan], [torch.nan, 1.0]]), "finite and symmetric"),
        (torch.zeros(2), torch.tensor([[1.0, 2.0], [2.0, 1.0]]), "positive semi-definite, got an eigenvalue of -1"),
    ],
    ids=["sizes", "a table", "a number", "not symmetric", "NaN", "indefinite"],
)
def test_a_distribution_that_is_none_is_refused(mean, covariance, message):
    with pytest.raises(ValueError, match=message):
        RandomStyle(shift, channel_means, mean, covariance)


def test_a_predictor_of_other_embeddings_is_refused():
    random = RandomStyle(shift, lambda images: images.mean((2, 3))[:, :2], MEAN, COVARIANCE)
    with pytest.raises(ValueError, match=r"embeddings \(4, 3\), as mean has them, got \(4, 2\)"):
        random(torch.rand(4, 3, 4, 4))


def test_an_alpha_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"alpha must lie in \[0, 1\], got 2"):
        style(alpha=2)
