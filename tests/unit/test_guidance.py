"""Guidance: what it leads away from, where it acts, and what it costs."""

import pytest
import torch

from pipeline.diffusion.conditioning import Condition
from pipeline.diffusion.guidance import guided
from tests.unit.mixture import Mixture


class Recorder:
    """A denoiser whose answer is the class, times a factor; remembers the size of each batch."""

    def __init__(self, factor: float = 1.0) -> None:
        self.calls: list[int] = []
        self.factor = factor

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor, c: Condition) -> torch.Tensor:
        assert sigma.shape == (len(x),) == c.classes.shape
        self.calls.append(len(x))
        return self.factor * c.classes.double().reshape(-1, 1, 1, 1).expand_as(x)


ASKED = Condition.of_classes(torch.tensor([1, 2]), 5)
X = torch.zeros(2, 1, 4, 4, dtype=torch.float64)


def test_both_branches_go_in_one_batch_inside_the_interval_and_one_goes_outside():
    denoiser = Recorder()
    denoise = guided(denoiser, ASKED, scale=3.0, interval=(0.5, 2.0))
    assert denoise(X, 1.0)[:, 0, 0, 0].tolist() == [5 + 3 * (1 - 5), 5 + 3 * (2 - 5)]
    assert denoise(X, 3.0)[:, 0, 0, 0].tolist() == [1, 2]
    assert denoise(X, 0.4)[:, 0, 0, 0].tolist() == [1, 2]
    assert denoiser.calls == [4, 2, 2]


def test_without_guidance_the_null_branch_is_not_computed():
    denoiser = Recorder()
    guided(denoiser, ASKED)(X, 1.0)
    assert denoiser.calls == [2]


def test_a_negative_class_takes_the_place_of_the_null_class():
    denoiser = Recorder()
    made = guided(denoiser, ASKED, scale=2.0, negative=2)(X, 1.0)
    assert made[:, 0, 0, 0].tolist() == [2 + 2 * (1 - 2), 2]
    assert denoiser.calls == [4]


def test_autoguidance_leads_away_from_the_guide_under_the_same_condition():
    denoiser, guide = Recorder(), Recorder(0.5)
    made = guided(denoiser, ASKED, scale=2.0, guide=guide)(X, 1.0)
    assert made[:, 0, 0, 0].tolist() == [0.5 + 2 * (1 - 0.5), 1 + 2 * (2 - 1)]
    assert denoiser.calls == guide.calls == [2]


def test_a_negative_class_and_a_guide_exclude_each_other():
    with pytest.raises(ValueError, match="not from both"):
        guided(Recorder(), ASKED, scale=2.0, negative=1, guide=Recorder())


def test_on_gaussians_guidance_moves_and_sharpens_the_score_as_its_formula_says():
    # Guided, the score is (1 − w) score_u + w score_c: for Gaussians of one width, that of a Gaussian whose mean is extrapolated.
    one, two = Mixture((1.0,), ((0.4,),), (0.1,)), Mixture((1.0,), ((-0.2,),), (0.1,))
    beyond = Mixture((1.0,), ((-0.2 + 2.5 * 0.6,),), (0.1,))

    def denoiser(x: torch.Tensor, sigma: torch.Tensor, c: Condition) -> torch.Tensor:
        return torch.where(c.classes[:, None] == 0, one.denoise(x, float(sigma[0])), two.denoise(x, float(sigma[0])))

    x = torch.linspace(-2, 2, 50, dtype=torch.float64)[:, None]
    denoise = guided(denoiser, Condition.of_classes(torch.zeros(50), 1), scale=2.5)
    torch.testing.assert_close(denoise(x, 0.7), beyond.denoise(x, 0.7))
