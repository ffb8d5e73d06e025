"""RobNets: published sizes and numbers, the network written once more with plain operations, and its genotypes."""

import json

import pytest
import timm
import torch
from robust_models.robnet import RobNet
from robust_models.robnet_cells import Cell, FactorizedReduce, SepConv, Zero
from robust_models.robnet_genotypes import FREE, LARGE, parse_genotype
from torch.nn import functional

SIZES = {
    "robnet_free": (5_439_790, 2015),
    "robnet_large_v1": (6_842_710, 2830),
    "robnet_large_v2": (33_326_666, 4624),
}
SMALL = {"channels": 4, "cells": 3}
MIXED = "01231230123012 32103210321033 23013201230123"  # every operation, also in the cells that halve


def images(side=16, count=2):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0))


def build(genotype=MIXED, **options):
    torch.manual_seed(0)
    return RobNet(genotype, **{**SMALL, **options}).eval()


@pytest.mark.parametrize("name", SIZES)
def test_has_the_published_size(name):
    with torch.device("meta"):
        model = timm.create_model(name)
    assert (sum(each.numel() for each in model.parameters()), len(model.state_dict())) == SIZES[name]


def test_has_the_published_size_for_imagenet():
    with torch.device("meta"):
        model = timm.create_model("robnet_large_imagenet")
        maps = model.eval().forward_intermediates(torch.empty(1, 3, 224, 224), intermediates_only=True)
    assert sum(each.numel() for each in model.parameters()) == 12_756_448
    assert [tuple(each.shape[1:]) for each in maps] == [(192, 28, 28), (384, 14, 14), (768, 7, 7)]


@pytest.mark.shared_data
@pytest.mark.slow
@pytest.mark.parametrize("name", ["robnet_free", "robnet_large_v1"])
def test_gives_the_stored_numbers(golden, name):
    golden(name).check(timm.create_model(name))


@pytest.mark.slow
def test_follows_the_protocol_of_timm(protocol):
    protocol("robnet_free", genotype="32202220220221", **SMALL).check()


# Once more, with plain operations on the entries of the state dict


def norm(w, key, x):
    return functional.batch_norm(
        x, w[f"{key}.running_mean"], w[f"{key}.running_var"], w.get(f"{key}.weight"), w.get(f"{key}.bias")
    )


def separable(w, key, x, stride):
    for first in (1, 5):
        kernel = w[f"{key}.op.{first}.weight"]
        x = functional.conv2d(x.relu(), kernel, None, stride if first == 1 else 1, 1, groups=len(kernel))
        x = norm(w, f"{key}.op.{first + 2}", functional.conv2d(x, w[f"{key}.op.{first + 1}.weight"]))
    return x


def halved(w, key, x):
    x = x.relu()
    even, odd = x[:, :, ::2, ::2], x[:, :, 1::2, 1::2]
    parts = [functional.conv2d(part, w[f"{key}.{name}.weight"]) for name, part in (("conv_1", even), ("conv_2", odd))]
    return norm(w, f"{key}.bn", torch.cat(parts, 1))


def preprocessed(w, key, x):
    if f"{key}.conv_1.weight" in w:
        return halved(w, key, x)
    return norm(w, f"{key}.op.2", functional.conv2d(x.relu(), w[f"{key}.op.1.weight"]))


def on_edge(w, key, code, x, stride):
    if code == "0":
        return 0
    if code == "1":
        return separable(w, f"{key}.op", x, stride)
    identity = x if stride == 1 else halved(w, f"{key}.op" if code == "2" else f"{key}.op.res", x)
    return identity if code == "2" else identity + separable(w, f"{key}.op.conv", x, stride)


def plain_robnet(w, genotype, x):
    def conv_norm(key, index, x, stride):
        return norm(w, f"{key}.{index + 1}", functional.conv2d(x, w[f"{key}.{index}.weight"], None, stride, 1))

    if "stem.0.weight" in w:
        s0 = s1 = conv_norm("stem", 0, x, 1)
    else:
        s0 = conv_norm("stem0", 3, conv_norm("stem0", 0, x, 2).relu(), 2)
        s1 = conv_norm("stem1", 1, s0.relu(), 2)
    for index, codes in enumerate(genotype.split()):
        key, reduction = f"cells.{index}", index in (1, 2)
        states = [preprocessed(w, f"{key}.preprocess0", s0), preprocessed(w, f"{key}.preprocess1", s1)]
        edge = 0
        for node in range(4):
            total = 0
            for source in range(2 + node):
                stride = 2 if reduction and source < 2 else 1
                total = total + on_edge(w, f"{key}._ops.{edge}", codes[edge], states[source], stride)
                edge += 1
            states.append(total)
        s0, s1 = s1, torch.cat(states[2:], 1)
    return functional.linear(s1.mean((2, 3)), w["classifier.weight"], w["classifier.bias"])


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_is_what_its_genotype_says(by_rule, stem):
    model = by_rule(build(stem=stem), 3).double()
    x = images(64).double()
    torch.testing.assert_close(model(x), plain_robnet(model.state_dict(), MIXED, x), rtol=1e-10, atol=1e-10)


# Sizes and options


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
@pytest.mark.parametrize("side", [7, 13, 25, 50])
def test_odd_maps_are_rounded_up(side, stem):
    """The published reduction fails on them."""
    model = build(stem=stem)
    maps = model.forward_intermediates(images(side), intermediates_only=True)
    assert [each.shape[-1] for each in maps] == [-(-side // info["reduction"]) for info in model.feature_info]
    assert model(images(side)).shape == (2, 10)


def test_the_second_convolution_of_a_reduction_sees_zeros_beyond_the_border():
    reduce = FactorizedReduce(1, 2).eval()
    torch.nn.init.ones_(reduce.conv_1.weight)
    torch.nn.init.ones_(reduce.conv_2.weight)
    x = torch.arange(1.0, 10).reshape(1, 1, 3, 3)
    scale = (1 + reduce.bn.eps) ** 0.5
    first, second = reduce(x)[0] * scale
    torch.testing.assert_close(first, torch.tensor([[1.0, 3], [7, 9]]))
    torch.testing.assert_close(second, torch.tensor([[5.0, 0], [0, 0]]))


def test_nothing_is_nothing_even_of_nan():
    for stride, side in ((1, 5), (2, 3)):
        assert torch.equal(Zero(stride)(torch.full((1, 2, 5, 5), float("nan"))), torch.zeros(1, 2, side, side))
    cell = Cell((4, 4, 4), (0,) * 14, reduction=False, after_reduction=False, drop_path=0.0)
    assert torch.equal(cell(*torch.full((2, 1, 4, 6, 6), torch.inf)), torch.zeros(1, 16, 6, 6))


def test_drop_path_leaves_out_edges_in_training_but_not_identities():
    identity = Cell((4, 4, 4), (2,) * 14, reduction=False, after_reduction=False, drop_path=0.9).train()
    x = images(6)[:, :1].expand(2, 4, 6, 6)
    inputs = identity.preprocess0(x), identity.preprocess1(x)
    torch.testing.assert_close(identity(x, x)[:, :4], sum(inputs))
    torch.manual_seed(1)
    model = build(LARGE, drop_path_rate=0.6)
    assert [cell.drop_path.drop_prob for cell in model.cells] == pytest.approx([0, 0.3, 0.6])
    torch.testing.assert_close(model(images()), build(LARGE)(images()))
    assert not torch.allclose(model.train()(images()), model(images()))


def test_only_the_first_depth_wise_convolution_is_strided_and_cells_have_no_affine_norms():
    assert [each.stride for each in SepConv(4, 2).op if isinstance(each, torch.nn.Conv2d)] == [
        (2, 2),
        (1, 1),
        (1, 1),
        (1, 1),
    ]
    norms = [each for each in build().cells.modules() if isinstance(each, torch.nn.BatchNorm2d)]
    assert norms
    assert not any(each.affine for each in norms)


def test_features_need_only_the_cells_before_them():
    model = timm.create_model("robnet_free", genotype=LARGE, features_only=True, out_indices=(0,), **SMALL)
    assert len(model.model.cells) == 1
    assert [each.shape for each in model(images())] == [(2, 16, 16, 16)]


def test_pooling_can_be_chosen():
    model = build(global_pool="catavgmax")
    features = model.forward_features(images())
    pooled = torch.cat([features.mean((2, 3)), features.amax((2, 3))], 1)
    torch.testing.assert_close(model.forward_head(features, pre_logits=True), pooled)
    assert model.head_hidden_size == 128
    model.reset_classifier(5, "max")
    torch.testing.assert_close(model.forward_head(features, pre_logits=True), features.amax((2, 3)))
    model.reset_classifier(0, "")
    torch.testing.assert_close(model(images()), features)
    with pytest.raises(ValueError, match="3 classes need pooled features"):
        model.reset_classifier(3)


# Genotypes


def test_one_genotype_is_shared_by_all_cells_without_a_switch():
    """The published large network raises IndexError unless it is told to share."""
    with torch.device("meta"):
        model = timm.create_model("robnet_large_v1")
    assert model.genotype == [tuple(map(int, LARGE))] * 20
    operations = {tuple(type(edge.op).__name__ for edge in cell._ops) for cell in model.cells}
    names = {"1": "SepConv", "2": "Identity", "3": "ResidualSepConv"}
    assert operations == {tuple(names[digit] for digit in LARGE)}


def test_depth_and_width_are_those_of_the_name():
    """In the published code the second large network has those of the first."""
    with torch.device("meta"):
        second, other = timm.create_model("robnet_large_v2"), timm.create_model("robnet_large_v2", cells=6, channels=8)
    assert (len(second.cells), second.stem[0].out_channels) == (33, 192)
    assert (len(other.cells), other.stem[0].out_channels) == (6, 24)


def test_genotypes_may_be_written_in_several_ways():
    expected = parse_genotype(FREE, 20)
    assert expected[1] == (3, 0, 1, 2, 1, 0, 2, 2, 0, 1, 3, 2, 3, 0)
    assert len(expected) == 20
    codes = [[f"{digit:02b}" for digit in entry] for entry in expected]
    for same in (FREE.split(), tuple(FREE.split()), expected, codes, json.dumps(codes), json.dumps(FREE.split())):
        assert parse_genotype(same, 20) == expected
    assert parse_genotype([codes[4]], 7) == [expected[4]] * 7


@pytest.mark.parametrize(
    ("genotype", "message"),
    [
        (LARGE[:13], "entry 0 of the genotype must be 14 digits"),
        (f"{LARGE} {LARGE[:13]}4 {LARGE}", "entry 1 .* got '33333131231114'"),
        ([["00"] * 13 + ["12"]], "codes '00' to '11'"),
        ([LARGE, LARGE], "one for each of the 3 cells, got 2 entries"),
        ("", "got 0 entries"),
        ([LARGE.replace("3", "²")], "entry 0"),
    ],
)
def test_wrong_genotypes_are_refused(genotype, message):
    with pytest.raises(ValueError, match=message):
        build(genotype)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cells": 2}, "at least 3 cells and 2 channels, got cells=2"),
        ({"channels": 1}, "channels=1"),
        ({"stem": "mnist"}, "'cifar' or 'imagenet', got 'mnist'"),
        ({"drop_path_rate": 1.0}, "drop_path_rate=1.0"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build(LARGE, **options)


def test_intermediates_have_one_format():
    with pytest.raises(ValueError, match="output_fmt='NLC'"):
        build().forward_intermediates(images(), output_fmt="NLC")
