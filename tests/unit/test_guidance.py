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
    made = guided(denoiser, ASKED, scale=2.0, negative=ASKED.only(0, 2))(X, 1.0)
    assert made[:, 0, 0, 0].tolist() == [2 + 2 * (1 - 2), 2]
    assert denoiser.calls == [4]


def test_autoguidance_leads_away_from_the_guide_under_the_same_condition():
    denoiser, guide = Recorder(), Recorder(0.5)
    made = guided(denoiser, ASKED, scale=2.0, guide=guide)(X, 1.0)
    assert made[:, 0, 0, 0].tolist() == [0.5 + 2 * (1 - 0.5), 1 + 2 * (2 - 1)]
    assert denoiser.calls == guide.calls == [2]


def test_a_negative_class_and_a_guide_exclude_each_other():
    with pytest.raises(ValueError, match="not both"):
        guided(Recorder(), ASKED, scale=2.0, negative=ASKED.null(), guide=Recorder())


def test_on_gaussians_guidance_moves_and_sharpens_the_score_as_its_formula_says():
    # Guided, the score is (1 − w) score_u + w score_c: for Gaussians of one width, that of a Gaussian whose mean is extrapolated.
    one, two = Mixture((1.0,), ((0.4,),), (0.1,)), Mixture((1.0,), ((-0.2,),), (0.1,))
    beyond = Mixture((1.0,), ((-0.2 + 2.5 * 0.6,),), (0.1,))

    def denoiser(x: torch.Tensor, sigma: torch.Tensor, c: Condition) -> torch.Tensor:
        return torch.where(c.classes[:, None] == 0, one.denoise(x, float(sigma[0])), two.denoise(x, float(sigma[0])))

    x = torch.linspace(-2, 2, 50, dtype=torch.float64)[:, None]
    denoise = guided(denoiser, Condition.of_classes(torch.zeros(50), 1), scale=2.5)
    torch.testing.assert_close(denoise(x, 0.7), beyond.denoise(x, 0.7))


def test_conditions_alone_add_their_own_weight_and_all_branches_go_in_one_batch():
    denoiser = Recorder()
    denoise = guided(denoiser, ASKED, scale=2.0, alone=[(3.0, ASKED.only(0, 4)), (-0.5, ASKED.only(0, 0))], interval=(0.5, 2.0))
    expected = [5 + 2 * (c - 5) + 3 * (4 - 5) - 0.5 * (0 - 5) for c in (1, 2)]
    assert denoise(X, 1.0)[:, 0, 0, 0].tolist() == expected
    assert denoise(X, 3.0)[:, 0, 0, 0].tolist() == [1, 2]
    assert denoiser.calls == [8, 2]


def test_independent_conditions_compose_to_their_conjunction():
    """p(x | a, b) is proportional to p(x | a) p(x | b) / p(x) where a and b are independent given x: of Gaussians it is known."""
    prior, one, two = (Mixture((1.0,), ((mean,),), (rms,)) for mean, rms in ((0.0, 0.4), (0.1, 0.2), (0.3, 0.25)))
    precision = 1 / 0.2**2 + 1 / 0.25**2 - 1 / 0.4**2
    both = Mixture((1.0,), (((0.1 / 0.2**2 + 0.3 / 0.25**2) / precision,),), (precision**-0.5,))

    def denoiser(x: torch.Tensor, sigma: torch.Tensor, c: Condition) -> torch.Tensor:
        level = float(sigma[0])
        answers = torch.stack([m.denoise(x, level) for m in (one, two, prior)])
        return answers[c.classes, torch.arange(len(x))]

    x = torch.linspace(-1, 1, 40, dtype=torch.float64)[:, None]
    asked = Condition.of_classes(torch.zeros(40), 2)
    denoise = guided(denoiser, asked, scale=1.0, alone=[(1.0, asked.only(0, 1))])
    # Noise couples the two, so that it holds in the limit of little of it.
    torch.testing.assert_close(denoise(x, 1e-3), both.denoise(x, 1e-3), atol=1e-9, rtol=0)
