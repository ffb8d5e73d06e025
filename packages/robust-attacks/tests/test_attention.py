import pytest
import torch
from robust_attacks._attention import Attentive, log_attention, without_conflict
from robust_attacks._patches import Patches


def vectors(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_what_conflicts_is_made_orthogonal_and_the_rest_is_kept():
    own, other = vectors(200, 2, 3), vectors(200, 2, 3, seed=1)
    along = (own * other).sum(dim=(1, 2))
    against = along < 0
    assert 50 < int(against.sum()) < 150
    fixed = without_conflict(own, [other])
    assert torch.equal(fixed[~against], other[~against])
    torch.testing.assert_close((fixed * own).sum(dim=(1, 2))[against], torch.zeros(int(against.sum()), dtype=own.dtype))
    moved = fixed - other  # along own, and nothing else
    cosine = torch.nn.functional.cosine_similarity(moved[against].flatten(1), own[against].flatten(1))
    torch.testing.assert_close(cosine, torch.ones_like(cosine))


def test_the_length_of_the_first_gradient_does_not_matter():
    """Dividing by the norm in place of its square does, which is a defect of published code."""
    own, other = vectors(50, 6), vectors(50, 6, seed=1)
    torch.testing.assert_close(without_conflict(1e-6 * own, [other]), without_conflict(own, [other]))
    torch.testing.assert_close(without_conflict(1e6 * own, [other]), without_conflict(own, [other]))


def test_a_zero_gradient_conflicts_with_nothing():
    other = vectors(3, 4).float()
    assert torch.equal(without_conflict(torch.zeros(3, 4), [other]), other)
    assert torch.equal(without_conflict(torch.full((3, 4), 1e-40), [other]).isfinite(), torch.ones(3, 4).bool())


def test_several_are_added_each_against_the_first_alone():
    own, one, two = vectors(20, 4), vectors(20, 4, seed=1), vectors(20, 4, seed=2)
    torch.testing.assert_close(
        without_conflict(own, [one, two]), without_conflict(own, [one]) + without_conflict(own, [two])
    )
    assert torch.equal(without_conflict(own, []), torch.zeros_like(own))


def test_log_attention_by_hand():
    attention = vectors(2, 3, 5, 5).softmax(dim=-1)
    tokens = torch.tensor([4, 1])
    for image in range(2):
        received = [
            sum(float(attention[image, head, query, tokens[image]]) for head in range(3)) / 3 for query in range(5)
        ]
        expected = torch.tensor(received, dtype=torch.float64).log().mean()
        torch.testing.assert_close(log_attention(attention, tokens)[image], expected)
    assert log_attention(torch.zeros(1, 1, 2, 2), torch.tensor([0])).isfinite().all()  # softmax may underflow
    assert log_attention(attention.bfloat16(), tokens).dtype == torch.float32


def shown(maps):
    """What happens when a model shows these maps for two images of four patches and one prefix token."""
    images = torch.rand(2, 1, 4, 4)
    model = Attentive("A", lambda images: (images.flatten(1)[:, :3], maps), Patches.of("A", images, 2), 1)
    model(images)
    return model


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        (
            [torch.rand(2, 3, 4, 4)],
            r"block 0 must have shape .* \(2, heads, 5, 5\), for 1 prefix tokens and 2 x 2 patches",
        ),
        ([torch.rand(2, 3, 5, 5), torch.rand(1, 3, 5, 5)], r"block 1 must have shape .* got \(1, 3, 5, 5\)"),
        ([torch.rand(2, 5, 5)], "block 0 must have shape"),
        ([None], "the map of block 0 is a NoneType"),
    ],
)
def test_wrong_maps_are_refused(maps, message):
    with pytest.raises((TypeError, ValueError), match=message):
        shown(maps)


def test_scores_are_means_over_heads_and_queries_without_the_prefix():
    attention = vectors(2, 3, 5, 5).softmax(dim=-1)
    scores = shown([torch.rand(2, 3, 5, 5), attention]).scores(1)
    expected = torch.stack([attention[:, :, :, token].reshape(2, -1).mean(dim=1) for token in range(1, 5)], dim=1)
    torch.testing.assert_close(scores, expected)


def test_scores_need_maps_and_the_layer():
    with pytest.raises(
        ValueError, match='A: choice="attention" needs attention maps, but the model returned logits alone'
    ):
        shown([]).scores(0)
    with pytest.raises(ValueError, match=r"layer 1 was asked for, but the model returned the maps of 1 blocks.*0\.\.0"):
        shown([torch.rand(2, 3, 5, 5)]).scores(1)
