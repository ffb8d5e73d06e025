import threading

import pytest
import torch
from robust_bench.corruptions import CORRUPTIONS, EXTRA_CORRUPTIONS, corrupt
from robust_bench.corruptions.threads import side_by_side


@pytest.fixture(autouse=True)
def _threads_are_given_back():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_results_come_in_order_and_from_several_threads_each_with_one_of_torchs():
    torch.set_num_threads(2)
    both = threading.Barrier(2, timeout=30)  # passes only if two pieces are worked on at a time

    def work(piece):
        both.wait()
        return piece, threading.current_thread().name, torch.get_num_threads()

    found = list(side_by_side(work, range(6), 2))
    assert [piece for piece, _, _ in found] == list(range(6))
    assert len({name for _, name, _ in found}) == 2
    assert {count for _, _, count in found} == {1}
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(("threads", "pieces"), [(1, 3), (4, 1), (4, 0)])
def test_nothing_is_divided_where_there_is_nothing_to_divide(threads, pieces):
    here = threading.current_thread()
    assert all(thread is here for thread in side_by_side(lambda _: threading.current_thread(), range(pieces), threads))


def test_an_error_comes_out_and_the_threads_are_given_back():
    torch.set_num_threads(2)

    def work(piece):
        raise ValueError(f"piece {piece}")

    with pytest.raises(ValueError, match="piece 0"):
        list(side_by_side(work, range(3), 2))
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("name", [*CORRUPTIONS, *EXTRA_CORRUPTIONS])
def test_the_pixels_do_not_depend_on_the_number_of_threads(name):
    images = torch.randint(256, (5, 3, 48, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    severity = torch.tensor([1, 5, 3, 3, 3])
    found = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        with torch.inference_mode(threads == 3):
            found.append([corrupt(images, name, level, "tiny_imagenet") for level in (3, severity)])
    (one, mixed), (three, mixed_three) = found
    assert torch.equal(one, three)
    assert torch.equal(mixed, mixed_three)
