"""What the names of the model-vs-human pictures say."""

import pytest
from robust_bench.datasets.stimulus import CATEGORIES, IMAGES, condition_name, cues, stimulus, stimulus_id
from robust_bench.metrics import LEFT_OUT_CONDITIONS

NAMES = [
    ("contrast", "dnn/session-1/0001_cop_dnn_c30_knife_10_n03041632_7380.png", "n03041632_7380", "knife", "c30"),
    ("uniform-noise", "1146_nse_dnn_0.00_truck_10_n03417042_5105.png", "n03417042_5105", "truck", "0"),
    ("uniform-noise", "1126_nse_dnn_0.10_oven_10_n04111531_9831.png", "n04111531_9831", "oven", "0.1"),
    ("high-pass", "1280_hp_dnn_inf_keyboard_10_n04505470_4565.png", "n04505470_4565", "keyboard", "inf"),
    ("high-pass", "1277_hp_dnn_3_chair_10_n03376595_10873.png", "n03376595_10873", "chair", "3"),
    ("low-pass", "1278_lp_dnn_5_bear_10_n02134084_6606.png", "n02134084_6606", "bear", "5"),
    ("eidolonI", "1187_eid_dnn_8-10-10_bear_10_n02133161_1981.png", "n02133161_1981", "bear", "8-10-10"),
    ("false-colour", "1109_fc_dnn_true_bicycle_35_n03792782_4403.png", "n03792782_4403", "bicycle", "true"),
    ("power-equalisation", "1117_pow_dnn_pow_bottle_35_n03983396_16742.png", "n03983396_16742", "bottle", "pow"),
    ("sketch", "session-1/0701_ske_dnn_0_oven_00_oven-0001-sketch-0.png", "oven-0001-sketch-0", "oven", "0"),
    ("stylized", "0651_sty_dnn_0_knife_00_knife-0001-ILSVRC2012-val-00000564.png",
     "knife-0001-ILSVRC2012-val-00000564", "knife", "0"),
    ("edge", "airplane/airplane10.png", "airplane10", "airplane", "0"),
    ("silhouette", "truck/truck3.png", "truck3", "truck", "0"),
    ("cue-conflict", "truck/truck4-bear1.png", "truck4-bear1", "truck", "0"),
]  # fmt: skip


@pytest.mark.parametrize(("dataset", "name", "picture", "category", "condition"), NAMES)
def test_names_as_they_are_published(dataset, name, picture, category, condition):
    found = stimulus(dataset, name)
    assert (found.id, found.category, found.condition) == (picture, category, condition)
    assert found.texture == ("bear" if dataset == "cue-conflict" else None)


@pytest.mark.parametrize(
    ("of_people", "of_models"),
    [
        ("0001_cop_s01_c30_knife_10_n03041632_7380.png", "0001_cop_dnn_c30_knife_10_n03041632_7380.png"),
        ("0000_cl_s01_bw_boat_40_n02951358_5952.JPEG", "0017_cl_dnn_bw_boat_40_n02951358_5952.png"),
        ("0001_edg_s07_0_oven_00_oven10.png", "oven/oven10.png"),
        ("0615_ske_s01_0_oven_00_oven-0021-sketch-27.png", "0720_ske_dnn_0_oven_00_oven-0021-sketch-27.png"),
        ("0007_cue_s02_0_cat_00_cat7-elephant1.png", "cat7-elephant1.png"),
    ],
)
def test_people_and_models_saw_the_same_picture(of_people, of_models):
    assert stimulus_id(of_people) == stimulus_id(of_models)


def test_ids_of_imagenet_pictures_keep_the_wordnet_id():
    assert stimulus_id("0001_cop_dnn_c30_knife_10_n03041632_7380.png") != stimulus_id(
        "0001_cop_dnn_c30_knife_10_n03041633_7380.png"
    )


# As the file names write them; the paper's code reads them as numbers and truth values.
IN_FILES = {
    "uniform-noise": ("0.00 0.03 0.05 0.10 0.20 0.35 0.60 0.90", "0.03 0.05 0.10 0.20 0.35"),
    "high-pass": ("inf 3 1.5 1 0.7 0.55 0.45 0.4", "3 1.5 1 0.7"),
    "low-pass": ("0 1 3 5 7 10 15 40", "1 3 5 7 10"),
    "false-colour": ("true false", "false"),
    "phase-scrambling": ("0 30 60 90 120 150 180", "30 60 90 120"),
    "contrast": ("c100 c50 c30 c15 c10 c05 c03 c01", "c50 c30 c15 c10 c05"),
    "eidolonIII": ("1-0-10 2-0-10 4-0-10 8-0-10 16-0-10 32-0-10 64-0-10 128-0-10", "2-0-10 4-0-10 8-0-10"),
}


@pytest.mark.parametrize("dataset", IN_FILES)
def test_conditions_are_written_alike_so_that_those_left_out_are_found(dataset):
    written, kept = (text.split() for text in IN_FILES[dataset])
    left_out = {condition_name(condition) for condition in LEFT_OUT_CONDITIONS[dataset]}
    assert [condition for condition in written if condition_name(condition) not in left_out] == kept
    assert left_out <= {condition_name(condition) for condition in written}
    assert len({condition_name(condition) for condition in written}) == len(written)


def test_a_set_without_conditions_has_one():
    assert {condition_name(text) for text in ("0", "0.0", "NaN", "nan", "")} == {"0"}


def test_the_sets_are_the_17_of_the_metrics():
    assert set(IMAGES) == set(LEFT_OUT_CONDITIONS)
    assert sum(IMAGES.values()) == 1280 * 10 + 1120 * 3 + 800 * 2 + 160 * 2
    assert len(CATEGORIES) == 16
    assert list(CATEGORIES) == sorted(CATEGORIES)


@pytest.mark.parametrize(
    ("dataset", "name", "message"),
    [
        ("contrast", "0001_cop_dnn_c30_knife.png", r"contrast lies in <number>_<code>_.*got 0001_cop_dnn_c30_knife"),
        ("contrast", "0001_cop_dnn_c30_sofa_10_n03041632_7380.png", "among airplane, bear, .*truck, got 0001_cop"),
        ("edge", "edges/airplane1.png", r"edge lies in <category>/<name>\.png, .*got edges/airplane1"),
        ("cue-conflict", "cat/cat7.png", r"<shape><i>-<texture><j>, as in cat7-elephant1, got 'cat7'"),
        ("cue-conflict", "cat/cat7-sofa1.png", "got 'cat7-sofa1'"),
        ("cue-conflict", "dog/cat7-elephant1.png", r"the shape of dog/cat7-elephant1\.png is cat, .*folder of dog"),
        ("edges", "cat/cat7.png", "unknown set 'edges': choose from sketch, "),
    ],
)
def test_says_what_is_wrong_with_a_name(dataset, name, message):
    with pytest.raises(ValueError, match=message):
        stimulus(dataset, name)


def test_cues_are_classes():
    assert cues("keyboard10-knife2") == ("keyboard", "knife")
    with pytest.raises(ValueError, match="got 'keyboard-knife'"):
        cues("keyboard-knife")
