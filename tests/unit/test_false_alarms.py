"""How often an honest set fails by chance."""

import math

import numpy as np
import pytest
from gate_reports import decide, interval, row

from privacy import bounds, limits
from privacy.judgements import DRAWN
from privacy.tail import leading_run


def test_the_shares_of_the_false_alarms_make_up_the_whole():
    assert math.fsum(limits.FALSE_ALARMS.values()) == pytest.approx(limits.FALSE_ALARM)


def test_an_honest_set_fails_once_in_a_hundred_at_the_most():
    """All that can fail an honest set, simulated as chance makes it: independent here, which is the worst case.

    The leading run is discrete, and ε and the AUC have their allowance between guessing and failing: the rate lies well below the sum.
    """
    rng = np.random.default_rng(0)
    trials, failed = 2000, 0
    guessing = math.sqrt(1 / (12 * 400) * 2)
    for _ in range(trials):
        flagged = int(rng.random() < limits.FALSE_ALARMS["copies"])
        run = leading_run(*np.split(rng.random(700), [400]))
        value = float(rng.normal(0.5, guessing))
        area = interval(value, value - 1.96 * guessing, value + 1.96 * guessing, 800)
        found = int(rng.binomial(400, 0.01))
        share = interval(found / 400, bounds.share_lower(found, 400, 0.025), bounds.share_upper(found, 400, 0.025), 400)
        attacked = {"auc": area, "tpr_at_1pct_fpr": share}
        report = {
            "unit": "patient",
            "drawn": DRAWN[0],
            "pixels": 32,
            "n": {"train": 400, "audit": 300, "synthetic": 1500, "holdout_units": 300},
            "copies": {
                **{"flagged": flagged, "undecided": 0, "twins": 0},
                **{"leading_run": run.length, "run_p": run.p_value, "repeats": 0, "explained": 0, "constants": 0},
            },
            "power": [row(kind, 99) for kind in limits.required_kinds(32)],
            "membership": {"auc": area},
            "split_bias": interval(0.5, 0.46, 0.54),
            "shadows": {"trainings": 15, "non_members": 300, "images": attacked, "weights": attacked},
            "one_run": {name: {"pairs": 300, "guesses": 60, "correct": int(rng.binomial(60, 0.5))} for name in ("images", "weights")},
        }
        verdict = decide(report)
        failed += "fail" in (verdict["images"]["verdict"], verdict["weights"]["verdict"])
    assert failed / trials <= limits.FALSE_ALARM + 3 * math.sqrt(limits.FALSE_ALARM / trials)
    assert failed > 0
