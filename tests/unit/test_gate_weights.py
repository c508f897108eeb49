"""The verdict on weights, and what attacks on membership say of both weights and images."""

import pytest
from gate_reports import changed, decide, find, honest, interval, shadows

from privacy import gate
from privacy.judgements import STARTED


@pytest.fixture
def report():
    return honest()


def test_without_shadow_trainings_images_pass_and_weights_do_not(report):
    assert find(report, "membership_images")["verdict"] == "not judged"
    assert find(report, "membership_weights", "weights")["verdict"] == "inconclusive"
    assert "without shadow trainings" in decide(report)["weights"]["reasons"][0]


def test_shadow_trainings_can_clear_and_can_fail_both(report):
    report["shadows"] = shadows()
    verdict = decide(report)
    assert verdict["images"]["verdict"] == verdict["weights"]["verdict"] == "pass"
    assert "membership" not in verdict["images"]["reasons"][0]
    report["shadows"]["weights"]["auc"] = interval(0.86, 0.84, 0.88)
    assert decide(report)["weights"]["verdict"] == "fail"
    assert decide(report)["verdict"] == "pass"
    report["shadows"]["images"]["tpr_at_1pct_fpr"] = interval(0.09, 0.07, 0.11)
    assert decide(report)["verdict"] == "fail"


@pytest.mark.parametrize("lack", [{"trainings": 7}, {"non_members": 299}])
def test_too_few_trainings_or_non_members_clear_nobody(report, lack):
    report["shadows"] = shadows() | lack
    assert decide(report)["weights"]["verdict"] == "inconclusive"
    assert find(report, "membership_images")["verdict"] == "inconclusive"
    verdict = decide(report)
    assert verdict["verdict"] == "pass", "who tries an attack that finds nothing fares no worse than who does not"
    assert "membership from the images (inconclusive)" in verdict["images"]["reasons"][0]


def test_a_rare_member_who_is_found_outweighs_a_mean_that_finds_nothing(report):
    report["shadows"] = shadows()
    report["shadows"]["weights"]["tpr_at_1pct_fpr"] = interval(0.02, 0.012, 0.035)
    assert decide(report)["weights"]["verdict"] == "inconclusive"


def test_the_loss_alone_can_fail_weights(report):
    report["membership"]["auc"] = interval(0.7, 0.66, 0.74)
    assert decide(report)["weights"]["verdict"] == "fail"
    assert decide(report)["verdict"] == "pass"


@pytest.mark.parametrize(("subject", "correct", "verdict"), [("images", 88, "fail"), ("images", 75, "not judged"), ("weights", 99, "fail")])
def test_one_run_fails_by_a_large_epsilon_and_enters_no_pass(report, subject, correct, verdict):
    guesses = 100 if subject == "images" else 99 * 3
    report["one_run"] = {subject: {"pairs": 5 * guesses, "guesses": guesses, "correct": correct if subject == "images" else guesses}}
    name = f"membership_{subject}"
    assert find(report, name, subject)["verdict"] == verdict
    if verdict == "fail":
        assert "ε is at least" in find(report, name, subject)["reason"]
        assert decide(report)[subject]["verdict"] == "fail"


def test_guesses_that_find_nothing_certify_nothing(report):
    report["one_run"] = {name: {"pairs": 5000, "guesses": 1000, "correct": 500, "epsilon_low": 0.0} for name in ("images", "weights")}
    assert decide(report)["weights"]["verdict"] == "inconclusive"
    assert find(report, "membership_images")["verdict"] == "not judged"


@pytest.mark.parametrize("attacked", [False, True])
@pytest.mark.parametrize("change", [{"copies": {"flagged": 3}}, {"copies": {"run_p": 0.001, "leading_run": 17}}])
def test_weights_fail_with_the_images_that_they_make(report, attacked, change):
    """Whether the attacks on the weights would have cleared them, or were too weak to: a mean over all patients hides three copied ones."""
    report = changed(report | ({"shadows": shadows()} if attacked else {}), change)
    assert find(report, "membership_weights", "weights")["verdict"] == ("pass" if attacked else "inconclusive")
    weights = decide(report)["weights"]
    assert weights == {"verdict": "fail", "reasons": [gate.MADE_BY]}
    report["membership"]["auc"] = interval(0.7, 0.66, 0.74)
    assert len(decide(report)["weights"]["reasons"]) == 2, "and by what the attacks on them found"


def test_weights_whose_images_are_undecided_stand_by_their_own_checks(report):
    report["shadows"] = shadows()
    report["n"]["synthetic"] = 800
    verdict = decide(report)
    assert (verdict["images"]["verdict"], verdict["weights"]["verdict"]) == ("inconclusive", "pass")


def test_weights_that_are_not_there_are_not_judged(report):
    del report["membership"], report["split_bias"]
    assert decide(report)["weights"]["verdict"] == "not judged"
    assert decide(report)["verdict"] == "pass"
    assert decide(changed(report, {"copies": {"flagged": 3}}))["weights"]["verdict"] == "not judged", "there is nothing to keep"


def test_an_attack_without_an_interval_is_not_judged(report):
    report["membership"]["auc"] = interval(0.7, None, None)
    assert find(report, "membership_weights", "weights")["verdict"] == "not judged"
    assert decide(report)["weights"]["verdict"] == "inconclusive"


# Warm starts.


def test_weights_that_began_from_those_of_other_patients_never_pass_and_the_images_say_so(report):
    """Nobody looks for those patients: they are in no split of this cohort."""
    report["shadows"] = shadows()
    assert "training began" not in decide(report | {"started": STARTED[0]})["images"]["reasons"][0]
    other = decide(report | {"started": STARTED[1]})
    assert other["weights"] == {"verdict": "inconclusive", "reasons": [gate.BEGAN]}
    assert other["verdict"] == "pass"
    assert "had been trained (other patients)" in other["images"]["reasons"][0]
    declared = decide(report | {"started": STARTED[2]})
    assert declared["weights"]["verdict"] == "pass", "published weights, on somebody's word"
    assert "(others, as declared)" in declared["images"]["reasons"][0]
    with pytest.raises(ValueError, match="holdout"):
        gate.checks(report | {"started": "on Jane Roe"})


# The control.


def test_sides_that_differ_by_themselves_leave_the_weights_undecided(report):
    report["shadows"] = shadows()
    for bias in (interval(0.6, 0.55, 0.65), interval(0.5, 0.3, 0.7)):
        report["split_bias"] = bias
        assert find(report, "split_bias", "weights")["verdict"] == "inconclusive"
        assert decide(report)["weights"]["verdict"] == "inconclusive"
        assert decide(report)["verdict"] == "pass", "this program drew the split of the images"
