"""Images that several parts have in common."""

import numpy as np
from robust_bench.answers import Answers
from robust_bench.benchmarks.common_images import in_common


def answers(ids, names=None):
    count = len(ids)
    return Answers(
        benchmark="b",
        settings={},
        condition="clean",
        ids=np.asarray(ids, dtype=np.int64),
        labels=np.zeros(count, dtype=np.int64),
        predictions=np.zeros(count, dtype=np.int64),
        confidences=np.ones(count, dtype=np.float32),
        right=np.ones(count, dtype=np.bool_),
        names=names,
    )


def test_parts_with_the_same_images_keep_their_order():
    found = in_common([answers([0, 1, 2]), answers([0, 1, 2])])
    assert [rows.tolist() for rows in found] == [[0, 1, 2], [0, 1, 2]]


def test_an_image_that_one_part_skipped_is_left_out_of_all():
    found = in_common([answers([0, 1, 2, 4]), answers([0, 2, 3, 4]), answers([0, 1, 2, 3, 4])])
    assert [rows.tolist() for rows in found] == [[0, 2, 3], [0, 1, 3], [0, 2, 4]]


def test_names_tell_images_apart_and_not_positions():
    one, other = answers([0, 1, 2], ("a", "b", "c")), answers([0, 1, 2], ("c", "a", "x"))
    assert [rows.tolist() for rows in in_common([one, other])] == [[0, 2], [1, 0]]


def test_names_and_positions_have_nothing_in_common():
    assert [rows.tolist() for rows in in_common([answers([0]), answers([0], ("a",))])] == [[], []]
