"""The gate's judgements: three verdicts, from bounds, with reasons that say what would do."""

import math

import pytest
from gate_reports import changed, decide, find, foreign, honest, interval, row, shadows

from pipeline.config import load_config
from pipeline.errors import InputError
from pipeline.runner import check_settings
from privacy import bounds, gate, limits
from privacy.judgements import DRAWN


@pytest.fixture
def report():
    return honest()


def test_an_honest_set_with_power_passes(report):
    verdict = decide(report)
    assert verdict["verdict"] == verdict["images"]["verdict"] == "pass"
    assert verdict["unit"] == "patient"
    assert verdict["needed"] == []
    assert verdict["gate_version"] == limits.GATE_VERSION


def test_the_checks_are_named_as_everybody_names_them(report):
    names = [(check["name"], check["subject"]) for check in gate.checks(report)]
    images = ["copies", "repeats", "membership_images", "power", "holdout", "split_bias"]
    assert names == [(name, "images") for name in images] + [(name, "weights") for name in ("membership_weights", "split_bias")]


@pytest.mark.parametrize(
    ("change", "verdict", "name"),
    [
        ({"copies": {"flagged": 1}}, "fail", "copies"),
        ({"copies": {"run_p": 0.0039, "leading_run": 9}}, "fail", "copies"),
        ({"n": {"synthetic": 800}}, "inconclusive", "copies"),
        ({"copies": {"undecided": 1, "twins": 2}}, "inconclusive", "copies"),
        ({"copies": {"undecided": 1, "twins": 2, "flagged": 1}}, "fail", "copies"),
        ({"copies": {"repeats": 20}}, "inconclusive", "repeats"),
        ({"copies": {"constants": 16}}, "inconclusive", "repeats"),
        ({"n": {"holdout_units": 299}}, "inconclusive", "holdout"),
    ],
)
def test_each_check_can_turn_the_verdict(report, change, verdict, name):
    report = changed(report, change)
    assert decide(report)["verdict"] == verdict
    assert find(report, name)["verdict"] == verdict
    assert find(report, name)["reason"] in decide(report)["images"]["reasons"]


def test_the_first_sentence_says_the_verdict_and_what_it_does_not_certify(report):
    first = decide(report)["images"]["reasons"][0]
    assert first.startswith("Pass: ")
    certified, _, rest = first.partition("; not certified: ")
    assert "membership from the images (not judged)" in rest
    assert "less than half in 2 of these ways" in rest
    assert "blur" not in rest
    assert "every required kind" in certified
    report["n"]["holdout_units"] = 200
    assert decide(report)["images"]["reasons"][0].startswith("Inconclusive: nothing was found")
    report["copies"]["flagged"] = 2
    assert decide(report)["images"]["reasons"][0].startswith("Fail: ")


def test_one_image_that_repeats_another_and_one_sealed_patient_are_spoken_of_in_the_singular(report):
    report["copies"].update(repeats=1, constants=1)
    assert "1 of 1,500 synthetic images repeats another one and 1 is of one value" in " ".join(decide(report)["images"]["reasons"])
    report["n"]["holdout_units"] = 1
    verdict = decide(report)
    assert "calibrated on 1 sealed patient; 300 are asked for" in " ".join(verdict["images"]["reasons"])
    assert any(needed.startswith("300 sealed patients are needed and 1 is there") for needed in verdict["needed"])


def test_images_no_nearer_than_twins_are_leave_the_set_open_and_the_verdict_says_what_to_do(report):
    report["copies"].update(undecided=3, twins=2)
    verdict = decide(report)
    assert verdict["images"]["reasons"][0].startswith("Inconclusive: 3 images may be copies, and ")
    assert "3 of 1500 synthetic images" in verdict["images"]["reasons"][1]
    assert "sealed ones with such a twin: 2" in verdict["images"]["reasons"][1]
    report["copies"].update(undecided=1)
    one = decide(report)["images"]["reasons"]
    assert one[0].startswith("Inconclusive: 1 image may be a copy, and ")
    assert "1 of 1500 synthetic images is nearer" in one[1]
    assert "It may be a copy, or a twin too." in one[1]
    (needed,) = verdict["needed"]
    assert "patient_id" in needed
    assert "pairs.json" in needed
    assert "another seed" in needed
    assert "another attempt" in needed
    assert find(report, "copies")["high"] > find(honest(), "copies")["high"], "what may be a copy is counted as one"
    report["copies"].update(undecided=0)
    assert decide(report)["verdict"] == "pass", "twins by themselves are nobody's copies"


def test_what_no_search_looks_for_is_named_and_of_given_files_what_they_hold_beside_their_images(report):
    first = decide(report)["images"]["reasons"][0]
    assert "hidden on purpose" in first
    assert "files" not in first, "the program writes its own"
    for drawn in DRAWN[1:]:
        assert "what the given files hold beside the images that were judged" in decide(foreign(report, drawn))["images"]["reasons"][0]
    without = foreign(report, DRAWN[2])
    without["n"]["holdout_units"] = 0
    assert "given files" in decide(without)["images"]["reasons"][0]


def test_the_last_reason_names_every_kind_that_is_not_certified_the_worst_found_first(report):
    report["power"] += [row("gamma", 80), row("crop", 79), row("elastic", 50), row("splice", 49)]
    first, *_, last = decide(report)["images"]["reasons"]
    assert first.endswith("finds less than half in 3, half or more in 2, 80% or more in 1 of these ways.")
    assert last.partition(". ")[2] == (
        "Less than half: JPEG of quality 15 (3 of 100), made anew from noise 0.25 (40 of 100), half of another (49 of 100). "
        "Half or more: warped (50 of 100), cropped (79 of 100). 80% or more: other gamma (80 of 100)."
    )
    report["copies"]["flagged"] = 2
    assert "other gamma" not in " ".join(decide(report)["images"]["reasons"]), "a fail certifies nothing"


def test_what_is_not_required_changes_no_verdict_however_badly_it_does(report):
    report["power"] += [row("occlusion", 0), row("bias_field", 0)]
    assert decide(report)["verdict"] == "pass"


# Power.


def test_one_required_kind_that_is_missed_decides_whatever_the_others_do(report):
    report["power"][4] = row("blur", 80)
    check = find(report, "power")
    assert check["verdict"] == "inconclusive"
    assert check["worst"] == "blur"
    assert check["low"] == pytest.approx(bounds.share_lower(80, 100, 0.0125 / 5))
    assert "“slightly blurred”" in check["reason"]
    assert any("audit.planted" in sentence for sentence in decide(report)["needed"])


def test_every_strength_of_a_required_kind_counts(report):
    report["power"] += [row("blur", 50, strength=2.0)]
    assert find(report, "power")["worst"] == "blur 2"


def test_a_required_kind_that_was_not_planted_is_no_power(report):
    del report["power"][0]
    assert find(report, "power")["verdict"] == "not judged"
    assert decide(report)["verdict"] == "inconclusive"


def test_a_kind_without_a_planted_copy_was_not_measured(report):
    report["power"] += [row("splice", 0, planted=0)]
    assert "half of another" not in " ".join(decide(report)["images"]["reasons"])
    report["power"][2] = row("shift", 0, planted=0)
    assert find(report, "power")["verdict"] == "not judged"
    assert find(report, "copies")["high"] == 1, "nothing found says nothing"
    assert decide(report)["verdict"] == "inconclusive"


def test_larger_images_ask_for_noise_and_compression_too(report):
    report["pixels"] = 64
    assert find(report, "power")["verdict"] == "not judged"
    report["power"] += [row("noise_weak", 97), row("jpeg_50", 98)]
    assert find(report, "power")["verdict"] == "pass"
    assert len(find(report, "power")["required"]) == 7


def test_a_copy_outweighs_missing_power(report):
    report["copies"]["flagged"] = 3
    report["power"] = []
    assert decide(report)["verdict"] == "fail"


def test_both_signs_of_copies_are_told(report):
    report["copies"].update(flagged=3, run_p=0.001, leading_run=17)
    reason = decide(report)["images"]["reasons"][1]
    assert "3 of 1500 synthetic images are copies" in reason
    assert "The 17 patients nearest" in reason


# Repeats.


def test_one_image_again_and_again_certifies_nothing(report):
    """The bound needs some 890 distinct images, whatever their number."""
    report["n"]["synthetic"] = 100_000
    report["copies"].update(repeats=99_200)
    check = find(report, "copies")
    assert check["n"] == 800
    assert check["verdict"] == "inconclusive"
    report["copies"].update(repeats=99_999)
    assert find(report, "copies")["high"] == 1
    assert find(report, "repeats")["verdict"] == "inconclusive"
    report["copies"].update(repeats=100_000 - 256, constants=100_000)
    assert find(report, "copies")["n"] == 1
    assert decide(report)["verdict"] == "inconclusive"
    assert gate.contradictions(gate.checks(report)) == []


def test_repeats_that_the_cohort_explains_are_no_fault_yet_certify_nothing(report):
    images = find(report, "copies")["n"]
    report["copies"].update(repeats=130, explained=130)
    assert find(report, "repeats")["verdict"] == "pass"
    assert find(report, "copies")["n"] == images - 130
    report["copies"].update(explained=131)
    with pytest.raises(ValueError, match="repeats"):
        gate.checks(report)


def test_a_repeat_here_and_there_does_not_matter(report):
    report["copies"].update(repeats=6)
    assert decide(report)["verdict"] == "pass"


# Attempts.


def test_every_attempt_asks_for_more(report):
    """At the k-th the bounds err with .05 / (k (k + 1)): their sum over all attempts is .05."""
    assert math.fsum(1 - limits.confidence(k) for k in range(1, 10_000)) == pytest.approx(0.05, rel=1e-3)
    verdicts = {k: decide(report, attempt=k)["verdict"] for k in (1, 2, 20)}
    assert verdicts == {1: "pass", 2: "pass", 20: "inconclusive"}
    highs = [find(report, "copies", attempt=k)["high"] for k in (1, 2, 3, 20)]
    assert highs == sorted(highs)


def test_what_is_found_is_found_at_every_attempt(report):
    for change in ({"copies": {"flagged": 1}}, {"copies": {"run_p": 0.0039, "leading_run": 9}}):
        assert {decide(changed(report, change), attempt=k)["verdict"] for k in (1, 5, 50)} == {"fail"}
    report["membership"]["auc"] = interval(0.62, 0.60, 0.64)
    assert {decide(report, attempt=k)["weights"]["verdict"] for k in (1, 5, 50)} == {"fail"}


def test_bounds_of_another_attempt_are_no_verdict(report):
    checks = gate.checks(report, attempt=1)
    with pytest.raises(ValueError, match="another confidence"):
        gate.decide(checks, attempt=2)


def test_exposed_patients_add_up_over_the_releases_of_a_cohort(report):
    """M copies of which none is found: (1 − recall)^M > error, with the lowest recall that any release had."""
    alone = find(report, "copies")
    error, recall = 0.0125, alone["recall"]
    assert (1 - recall) ** alone["exposed"] > error >= (1 - recall) ** (alone["exposed"] + 1)
    later = find(report, "copies", attempt=2, earlier_recall=0.6)
    assert 0.4 ** later["exposed"] > 0.05 / 6 / 2 >= 0.4 ** (later["exposed"] + 1)
    assert later["exposed"] > limits.MAX_EXPOSED
    assert later["verdict"] == "inconclusive"


# Membership.


def test_a_foreign_set_passes_with_a_holdout_that_was_declared_random_and_is_one(report):
    declared = decide(foreign(report, DRAWN[1]))
    assert declared["verdict"] == "pass"
    assert "both of which were declared" in declared["images"]["reasons"][0], "what a verdict stands on is said with it"
    assert "declared" not in decide(report)["images"]["reasons"][0]
    undeclared = decide(foreign(report, DRAWN[2]))
    assert undeclared["verdict"] == "inconclusive"
    assert undeclared["images"]["reasons"][0].startswith("Inconclusive: nothing was found")
    assert any("--holdout-random" in sentence for sentence in undeclared["needed"])


def test_a_foreign_holdout_of_another_source_does_not_pass(report):
    other = foreign(report, DRAWN[1])
    other["split_bias"] = interval(0.8, 0.77, 0.83)
    assert decide(other)["verdict"] == "inconclusive"
    del other["split_bias"]
    assert decide(other)["verdict"] == "inconclusive"


def test_a_foreign_set_fails_by_what_is_found_whatever_was_declared(report):
    for drawn in DRAWN[1:]:
        assert decide(changed(foreign(report, drawn), {"copies": {"flagged": 1}}))["verdict"] == "fail"


def test_a_replication_never_passes(report):
    checks = gate.checks(report)
    for subject in ("images", "weights"):
        verdict = gate.decide(checks, attempt=None, replication=True)[subject]
        assert verdict["verdict"] == "inconclusive"
        assert gate.REPLICATION in verdict["reasons"]
    report["copies"].update(undecided=3, twins=2)
    assert gate.decide(gate.checks(report), attempt=None, replication=True)["needed"] == [], "nothing would let it pass"
    report["copies"].update(flagged=1, undecided=0)
    verdict = gate.decide(gate.checks(report), replication=True)
    assert verdict["verdict"] == "fail"
    assert verdict["images"]["reasons"][2:] == [gate.REPLICATION]


def test_without_a_holdout_nothing_is_certified_and_it_is_said(report):
    report = foreign(report, DRAWN[2])
    report["n"].update(audit=0, holdout_units=0)
    report["copies"].update(leading_run=700, run_p=1.0)
    report["power"] = []
    del report["split_bias"]
    verdict = decide(report)
    assert verdict["verdict"] == "inconclusive"
    assert "none are there" in verdict["needed"][0]
    assert gate.contradictions(gate.checks(report)) == []


# What a configuration may change.


def test_a_configuration_may_tighten_the_gate_and_not_loosen_it(report):
    assert decide(report, 0.001)["verdict"] == "inconclusive"
    for lax in (0.02, 0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="only be tightened"):
            gate.checks(report, lax)


@pytest.mark.parametrize("setting", ["release.contact", "release.title", "release.licence"])
def test_a_text_that_no_release_may_hold_is_refused_where_a_run_is_planned(setting):
    address = "https://www.example.org/departments/radiology/research/data-steward/contact"
    with pytest.raises(InputError, match=rf"^{setting} holds what a release takes for data"):
        check_settings(load_config("quickstart", [f"{setting}={address}"]))


def test_a_laxer_bound_is_refused_where_a_run_is_planned():
    check_settings(load_config("quickstart", ["release.max_copy_rate=0.001"]))
    with pytest.raises(InputError, match=r"release\.max_copy_rate.*tightened"):
        check_settings(load_config("quickstart", ["release.max_copy_rate=0.02"]))


# What is counted.


def test_what_is_near_is_no_larger_share_of_the_distinct_images_than_all_of_them(report):
    report["copies"].update(flagged=10, repeats=1498)
    check = find(report, "copies")
    assert (check["n"], check["value"], check["high"], check["verdict"]) == (2, 1, 1, "fail")


def test_the_share_of_copies_has_the_lower_bound_of_a_95_percent_interval_and_all_images_may_be_copied_patients(report):
    report["copies"].update(flagged=3, repeats=500)
    check = find(report, "copies")
    assert check["low"] == pytest.approx(bounds.share_lower(3, 1000, 0.025))
    report["power"] = []
    assert find(report, "copies")["exposed"] == 1500, "a search that was not measured excludes nobody, however alike their images are"


def test_who_draws_the_split_at_random_has_images_judged_whatever_tells_the_sides_apart_and_weights_not(report):
    report["split_bias"] = interval(0.8, 0.77, 0.83)
    assert find(report, "split_bias")["verdict"] == "not judged"
    assert find(report, "split_bias", "weights")["verdict"] == "inconclusive"
    assert decide(report)["verdict"] == "pass"


def test_sides_of_a_foreign_set_that_are_told_apart_at_all_are_no_controls(report):
    report = foreign(report, DRAWN[1])
    report["split_bias"] = interval(0.55, 0.51, 0.58)
    assert find(report, "split_bias")["high"] < limits.MAX_SPLIT_BIAS
    assert "differ by themselves" in find(report, "split_bias")["reason"]
    assert decide(report)["verdict"] == "inconclusive"


def test_attacks_without_an_interval_were_not_tried_whatever_was_trained_and_guesses_count_their_pairs(report):
    report["shadows"] = shadows()
    report["shadows"]["images"]["auc"] = interval(0.5, None, None)
    assert find(report, "membership_images")["verdict"] == "not judged"
    report["one_run"] = {"images": {"pairs": 500, "guesses": 100, "correct": 52}}
    check = find(report, "membership_images")
    assert (check["n"], check["trainings"], check["verdict"]) == (500, 0, "not judged")
