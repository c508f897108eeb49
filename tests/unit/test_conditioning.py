"""Conditions: what is asked of a denoiser, taken in rows, joined, dropped and replaced by nothing asked for."""

import numpy as np
import pytest
import torch

from pipeline.diffusion.conditioning import Condition

ASKED = Condition.of_classes(np.array([0, 2, 1, 2, 0]), 3)


def test_nothing_asked_for_is_the_class_after_the_last():
    assert ASKED.null().classes.tolist() == [3] * 5
    assert ASKED.only(0, 1).classes.tolist() == [1] * 5


def test_rows_keep_their_order_however_they_are_taken():
    assert ASKED.take(torch.tensor([4, 1])).classes.tolist() == [0, 2]
    assert ASKED.take(slice(1, 3)).classes.tolist() == [2, 1]
    assert ASKED.joined(ASKED.null()).classes.tolist() == [0, 2, 1, 2, 0, 3, 3, 3, 3, 3]
    assert [len(part) for part in ASKED.chunk(2)] == [3, 2]


@pytest.mark.parametrize("probability", [0.0, 0.1, 1.0])
def test_each_condition_is_dropped_on_its_own(probability):
    many = Condition.of_classes(np.zeros(20_000), 1)
    dropped = many.dropped(probability, torch.Generator().manual_seed(0)).classes
    assert float(dropped.float().mean()) == pytest.approx(probability, abs=0.01)
    assert many.classes.sum() == 0


def test_of_one_class_an_image_each_row_takes_one_number_and_no_other_is_drawn():
    """Trainings with one class an image are what they were, bit for bit, whatever is done with several fields."""
    many, drawn, other = Condition.of_classes(np.arange(300) % 3, 3), torch.Generator().manual_seed(5), torch.Generator().manual_seed(5)
    expected = torch.where(torch.rand(300, 1, generator=other) < 0.3, 3, many.codes)
    assert torch.equal(many.dropped(0.3, drawn).codes, expected)
    assert torch.equal(drawn.get_state(), other.get_state())


def test_a_captured_graph_reads_what_is_copied_into_its_rows():
    held = ASKED.clone()
    seen = held.classes
    held.copy_(ASKED.null())
    assert seen.tolist() == [3] * 5
    assert ASKED.classes.tolist() == [0, 2, 1, 2, 0]
