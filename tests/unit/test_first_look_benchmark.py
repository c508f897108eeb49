"""What the benchmark of the first look calls memory is none where both trainings are one, and is told by patient."""

import numpy as np
import pytest

from pipeline import fit_recipe
from pipeline.config import TrainConfig
from pipeline.diffusion.validation import Validation
from pipeline.evaluate import labelled
from tests.benchmarks import first_look


def test_one_training_remembers_nothing_that_it_does_not_remember():
    cohorts = first_look.halves(24, 0, 16)
    assert not {*cohorts[0].rows["patient"]} & {*cohorts[1].rows["patient"]}
    section = TrainConfig.model_validate(first_look.RECIPE | {"widths": [8]})
    section = fit_recipe.settled(section, fit_recipe.fit(section, cohorts[0], "cpu"))
    training, other = (first_look.begun(cohort, section, 0) for cohort in cohorts)
    sides = [Validation(labelled(cohort), labelled(cohort), 0) for cohort in cohorts]
    training.run(until=1)
    logs, labels, groups = first_look.memory([training, training], sides)
    assert len(logs) == len(labels) == len(groups) == sum(len(side.train) for side in sides)
    np.testing.assert_array_equal(logs, 0)
    assert np.abs(first_look.memory([training, other], sides)[0]).max() > 0


def test_a_ratio_is_the_geometric_mean_over_patients():
    logs, groups = np.log([2.0, 8.0, 1.0, 4.0]), np.array(["a", "a", "b", "c"])
    value, error = first_look.ratio(logs, groups)
    assert value == pytest.approx((4 * 1 * 4) ** (1 / 3))
    assert error == pytest.approx(value * np.std(np.log([4, 1, 4]), ddof=1) / 3**0.5)
