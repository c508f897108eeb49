"""What is said of somebody's classifier, from made-up probabilities of which the truth is known."""

import json

import numpy as np
import pytest

from evaluation import rules as accept
from evaluation.data import Labelled
from evaluation.foreign import ABSTAINED, Answers, compared, fit, gaps, judged, labels_only, marker, other_order
from evaluation.intervals import to_json
from evaluation.metrics import Floats, macro_auc
from evaluation.shifts import fitting

NAMES = ("normal", "effusion", "nodule")
SHIFTS = fitting("DX", 1)


def scores(labels: np.ndarray, rng: np.random.Generator, strength: float) -> Floats:
    logits = rng.normal(0, 1, (len(labels), 3)) + strength * np.eye(3)[labels]
    p = np.exp(logits)
    return p / p.sum(axis=1, keepdims=True)


@pytest.fixture(scope="module")
def cases() -> Labelled:
    rng = np.random.default_rng(0)
    labels = rng.choice(3, 400, p=[0.5, 0.3, 0.2])
    sex = np.where(np.arange(400) % 3, "F", "M")
    sex[:5] = ""
    return labels_only((labels[:, None] == np.arange(3)).astype(np.int8), np.arange(400) // 2, {"sex": sex})


@pytest.fixture(scope="module")
def answers(cases: Labelled) -> Answers:
    """Blur at 5 turns half of the effusions into confident normals; noise does nothing; contrast makes the model less sure, not worse."""
    p = scores(cases.labels, np.random.default_rng(1), 4)
    struck = p.copy()
    struck[np.flatnonzero(cases.labels == 1)[::2]] = [0.98, 0.01, 0.01]
    unsure = np.sqrt(np.sqrt(p))
    unsure /= unsure.sum(axis=1, keepdims=True)
    return Answers(p, {("blur", 5): struck, ("noise", 1): p.copy(), ("contrast", 2): unsure})


def test_the_shift_that_adds_confident_errors_is_the_harm_and_the_others_are_none(answers: Answers, cases: Labelled) -> None:
    found = judged(answers, cases, NAMES)
    first, *others = found["harm"]["conditions"]
    assert (first["shift"], first["severity"], first["stands"]) == ("blur", 5, True)
    added = (answers.shifted["blur", 5].argmax(axis=1) != cases.labels).mean() - (answers.clean.argmax(axis=1) != cases.labels).mean()
    assert first["more"].by.value == pytest.approx(added, abs=0.01)
    assert not any(one["stands"] for one in others)
    assert found["harm"]["clean"]["kept"].value == pytest.approx(1 - ABSTAINED, abs=0.005)
    unsure = next(one for one in others if one["shift"] == "contrast")
    assert unsure["kept"].value < 0.2, "it abstains, which is no silent error"
    by_brier = {row["shift"]: row["more"] for row in found["calibration"]}
    assert by_brier["contrast"].stands
    assert by_brier["contrast"].by.value > 0, "but its probabilities are worse"
    assert by_brier["noise"].by.value == 0
    json.dumps(to_json(found), allow_nan=False)


def test_the_class_that_is_missed_is_named_with_its_drop(answers: Answers, cases: Labelled) -> None:
    found = judged(answers, cases, NAMES)["sensitivities"]
    [blurred] = [row for row in found["effusion"] if row["shift"] == "blur"]
    effusion = cases.labels == 1
    drop = (answers.clean.argmax(axis=1)[effusion] == 1).mean() - (answers.shifted["blur", 5].argmax(axis=1)[effusion] == 1).mean()
    assert blurred["drop"].by.value == pytest.approx(drop)
    assert blurred["drop"].stands
    assert not any(row["drop"].stands for row in found["nodule"] + found["normal"])


def test_a_class_of_few_patients_has_no_drops(answers: Answers, cases: Labelled) -> None:
    rows = np.r_[np.flatnonzero(cases.labels != 2), np.flatnonzero(cases.labels == 2)[:6]]
    few = Answers(answers.clean[rows], {key: p[rows] for key, p in answers.shifted.items()})
    assert judged(few, cases.take(rows), NAMES)["sensitivities"]["nodule"] == {"few": 11}


@pytest.mark.parametrize(
    ("strength", "n", "answer", "why"),
    [
        (4.0, 400, "yes", "on clean images"),
        (0.0, 400, "no", "below 0.7, there is nothing to lose"),
        (0.6, 120, "not enough data", "may be below 0.7"),
        (
            4.0,
            20,
            "not enough data",
            "of normal (6), effusion (5), nodule (5) there are fewer than 11 patients: give more of them, or none",
        ),
    ],
)
def test_fitness_is_said_first(cases: Labelled, strength: float, n: int, answer: str, why: str) -> None:
    some = cases.take(np.arange(n))
    found = fit(scores(some.labels, np.random.default_rng(3), strength), some, NAMES)
    assert found.answer == answer, found
    assert why in found.why


def test_a_class_without_cases_hinders_nothing(cases: Labelled) -> None:
    two = cases.take(cases.labels != 2)
    assert fit(scores(two.labels, np.random.default_rng(3), 4), two, NAMES).answer == "yes"
    assert (
        fit(scores(two.labels, np.random.default_rng(3), 4)[:50], two.take(np.flatnonzero(two.labels == 0)[:50]), NAMES).answer
        == "not enough data"
    )


def test_a_subgroup_that_is_missed_more_often_has_its_gap_to_the_others(cases: Labelled) -> None:
    p = scores(cases.labels, np.random.default_rng(1), 4)
    sex = cases.attributes["sex"]
    missed = np.flatnonzero((sex == "F") & (cases.labels == 1))
    p[missed[::2]] = [0.98, 0.01, 0.01]
    rows = {(row["value"], row["class"]): row for row in gaps(p, cases, NAMES)}
    assert rows["F", "effusion"]["gap"].stands
    hits = p.argmax(axis=1) == 1
    others = (cases.labels == 1) & (sex == "M")
    assert rows["F", "effusion"]["gap"].by.value == pytest.approx(hits[others].mean() - hits[missed].mean()), "who has no value is neither"
    assert rows["F", "effusion"]["sensitivity"].value == pytest.approx(hits[missed].mean())
    assert rows["M", "effusion"]["gap"].by.value == pytest.approx(-rows["F", "effusion"]["gap"].by.value)
    assert not rows["F", "nodule"]["gap"].stands


def test_a_gaps_interval_is_that_of_two_independent_shares() -> None:
    """With one row a patient, the standard error is that of a difference of proportions."""
    rng = np.random.default_rng(2)
    labels, sex = np.repeat([0, 1], 600), np.where(rng.random(1200) < 0.4, "F", "M")
    cases = labels_only((labels[:, None] == np.arange(2)).astype(np.int8), np.arange(1200), {"sex": sex})
    p = np.where(rng.random((1200, 1)) < 0.8, np.eye(2)[labels], 1 - np.eye(2)[labels])
    [row] = [row for row in gaps(p, cases, ("a", "b")) if (row["value"], row["class"]) == ("F", "b")]
    shares = [(p.argmax(axis=1) == 1)[(labels == 1) & (sex == one)] for one in ("F", "M")]
    error = np.sqrt(sum(one.mean() * (1 - one.mean()) / len(one) for one in shares))
    assert (row["gap"].by.high - row["gap"].by.low) / 2 == pytest.approx(1.96 * error, rel=0.05)


def moved(p: Floats, to: int, by: float, noise: float, seed: int) -> Floats:
    """The probabilities with so much of the others' given to a class, image by image with some spread."""
    share = np.clip(by + noise * np.random.default_rng(seed).standard_normal((len(p), 1)), -1, 1)
    return np.where(share > 0, p + share * (np.eye(3)[to] - p), p + share * (p - 1 / 3))


@pytest.mark.parametrize(
    ("letter", "patch", "stands"),
    [
        (0.30, 0.00, True),
        (0.30, 0.28, True),
        (0.30, 0.40, False),  # any bright thing does it
        (0.03, 0.00, False),  # less than matters
        (0.00, 0.00, False),
    ],
)
def test_a_letter_is_read_where_it_moves_more_than_matters_and_than_the_same_light_without_its_shape(
    letter: float, patch: float, stands: bool, cases: Labelled
) -> None:
    p = scores(cases.labels, np.random.default_rng(1), 2)
    shifted = {("marker", 3): moved(p, 1, letter, 0.02, 2), ("patch", 3): moved(p, 1, patch, 0.02, 3)}
    rows = {row["class"]: row for row in marker(Answers(p, shifted), cases, NAMES)}
    assert rows["effusion"]["change"].stands is stands
    assert not rows["normal"]["change"].stands, "what loses is not called read"
    assert rows["effusion"]["change"].by.value == pytest.approx((shifted["marker", 3] - p)[:, 1].mean())
    assert rows["effusion"]["patch"].value == pytest.approx((shifted["patch", 3] - p)[:, 1].mean())


def test_models_that_a_letter_moves_by_what_is_allowed_are_rarely_said_to_read_it(cases: Labelled) -> None:
    """At the very edge of what is allowed, on all five sizes: at most 5 % of models, with room for 40 draws."""
    rng, found = np.random.default_rng(4), 0

    def of(effusion: np.ndarray) -> Floats:
        return np.stack([(1 - effusion) / 2, effusion, (1 - effusion) / 2], axis=1)

    before = rng.uniform(0.35, 0.5, len(cases))
    for _ in range(40):
        shifted = {("marker", size): of(before + rng.normal(0.05, 0.08, len(cases))) for size in range(1, 6)}
        shifted |= {("patch", size): of(before) for size in range(1, 6)}
        found += any(row["change"].stands for row in marker(Answers(of(before), shifted), cases, NAMES))
    assert found <= 5


def test_without_markers_nothing_is_said_of_them(answers: Answers, cases: Labelled) -> None:
    assert marker(answers, cases, NAMES) == []


def test_two_models_are_paired_on_the_same_cases(answers: Answers, cases: Labelled) -> None:
    worse = scores(cases.labels, np.random.default_rng(9), 1)
    other = Answers(worse, {key: worse if key[0] != "blur" else p for key, p in answers.shifted.items()})
    rows = compared(answers, other, cases)
    assert rows[0]["shift"] is None
    assert rows[0]["gain"].by.value == pytest.approx(macro_auc(answers.clean, cases.labels) - macro_auc(worse, cases.labels))
    assert rows[0]["gain"].stands
    [blurred] = [row for row in rows if row["shift"] == "blur"]
    assert blurred["gain"].by.value == 0
    assert not blurred["gain"].stands


def asked(text: str, answers: Answers, cases: Labelled, against: Answers | None = None) -> accept.Answered:
    rule = accept.parsed(text, NAMES, SHIFTS, against=against is not None)
    return accept.answered([rule], answers, cases, NAMES, against)[0]


@pytest.mark.parametrize(
    ("rule", "answer"),
    [
        ("sensitivity(effusion) >= 0.85", "yes"),
        ("sensitivity(effusion) >= 0.85 at blur 5", "no"),
        ("sensitivity(effusion) <= 0.85 at blur 5", "yes"),
        ("sensitivity(effusion) >= 0.85 at noise 1", "yes"),
        ("specificity(normal) >= 0.5 at blur 5", "yes"),
        ("auc(nodule) >= 0.9", "yes"),
        ("auc_drop <= 0.01 at blur 5", "no"),
        ("accuracy >= 0.9 at blur 5", "no"),
        ("balanced_accuracy >= 0.8", "yes"),
        ("brier <= 0.2 at noise 1", "yes"),
        ("sensitivity(effusion) >= 0.8 in sex=F", "yes"),
        ("sensitivity(effusion) >= 0.8 in sex=X", "not enough data"),
        ("sensitivity(effusion) >= 0.8 in site=a", "not enough data"),
    ],
)  # fmt: skip
def test_a_rule_is_answered(rule: str, answer: str, answers: Answers, cases: Labelled) -> None:
    found = asked(rule, answers, cases)
    assert found.answer == answer, found
    assert found.rule == rule


def test_a_bound_inside_the_interval_is_not_decided_and_it_is_said_how_many_would(answers: Answers, cases: Labelled) -> None:
    value = asked("sensitivity(effusion) >= 0.1", answers, cases).measured
    found = asked(f"sensitivity(effusion) >= {(value.value + value.low) / 2:.4f}", answers, cases)
    assert found.answer == "not enough data"
    assert "about 4 times as many patients" in found.why
    share = asked("sensitivity(effusion) >= 0.1 at blur 5", answers, cases).measured.value
    exact = asked(f"sensitivity(effusion) >= {share} at blur 5", answers, cases)
    assert exact.answer == "not enough data"
    assert "times" not in exact.why


def test_no_is_said_at_a_confidence_that_holds_for_all_rules(answers: Answers, cases: Labelled) -> None:
    """A bound just above one interval is broken where it is the one rule, and undecided among a hundred."""
    high = asked("sensitivity(effusion) >= 0.1 at blur 5", answers, cases).measured.high
    rule = accept.parsed(f"sensitivity(effusion) >= {high + 0.01:.4f} at blur 5", NAMES, SHIFTS, against=False)
    assert accept.answered([rule], answers, cases, NAMES)[0].answer == "no"
    assert accept.answered([rule] * 100, answers, cases, NAMES)[0].answer == "not enough data"


def test_a_part_that_no_case_belongs_to_is_told_with_those_that_there_are(answers: Answers, cases: Labelled) -> None:
    assert asked("auc >= 0.8 in sex=female", answers, cases).why == "no case has sex=female: write sex=F or sex=M"


def test_an_answer_says_on_how_many_images_it_rests(answers: Answers, cases: Labelled) -> None:
    assert f", n = {(cases.labels == 1).sum()}: the whole interval" in asked("sensitivity(effusion) >= 0.5", answers, cases).why


@pytest.mark.parametrize("name", ["nodule (benign)", "< 5 mm", "a >= b)"])
def test_a_class_may_be_called_anything(name: str) -> None:
    rule = accept.parsed(f"sensitivity({name}) >= 0.8 at blur 2 in sex=F", ["none", name], SHIFTS, against=False)
    assert (rule.label, rule.value, rule.condition, rule.part) == (name, 0.8, ("blur", 2), ("sex", "F"))


def test_a_model_beside_itself_has_gained_nothing(answers: Answers, cases: Labelled) -> None:
    rows = compared(answers, answers, cases)
    assert all(row["gain"].by.value == 0 and row["gain"].by.low < 0 < row["gain"].by.high and not row["gain"].stands for row in rows)
    found = asked("auc_gain >= 0.001", answers, cases, answers)
    assert (found.answer, found.measured.value) == ("not enough data", 0)


@pytest.mark.parametrize("order", [(1, 0, 2), (2, 0, 1)])
def test_an_order_of_classes_that_fits_better_is_found(order: tuple[int, ...], cases: Labelled) -> None:
    """A model that ranks far from all cases right, as a few images need not show."""
    p = scores(cases.labels, np.random.default_rng(3), 1.5)
    assert other_order(p, cases) is None
    assert other_order(p[:, order], cases) == order, "output j is of class order[j]"


def test_models_that_know_nothing_are_seldom_said_to_have_another_order(cases: Labelled) -> None:
    rng = np.random.default_rng(4)
    found = [other_order(scores(cases.labels, rng, 0), cases) for _ in range(100)]
    assert sum(one is not None for one in found) <= 5


def test_the_order_of_several_findings_is_looked_for_where_each_is_known(cases: Labelled) -> None:
    findings = (np.random.default_rng(5).random((400, 4)) < 0.3).astype(np.int8)
    findings[::7, 1] = -1
    findings[:, 3] = 0  # which no case has, so that nothing is known of its place
    test = labels_only(findings, cases.groups)
    p = np.random.default_rng(6).normal(0, 1, (400, 4)) + 2 * (findings == 1)
    assert other_order(p, test) is None
    assert other_order(p[:, [0, 2, 1, 3]], test) == (0, 2, 1, 3)


def test_a_gain_is_over_the_other_model(answers: Answers, cases: Labelled) -> None:
    worse = scores(cases.labels, np.random.default_rng(9), 1)
    other = Answers(worse, dict.fromkeys(answers.shifted, worse))
    assert asked("auc_gain >= 0.05", answers, cases, other).answer == "yes"
    assert asked("auc_gain >= 0.05", other, cases, answers).answer == "no"


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("the model is good", "cannot be read: write MEASURE"),
        ("sensitivity >= 0.8", "sensitivity is no measure of all classes: write sensitivity(CLASS), or use auc, accuracy"),
        ("Sensitivity(nodule) >= 0.8", "Sensitivity is no measure of one class: did you mean sensitivity"),
        ("accuracy(normal) >= 0.8", "accuracy is no measure of one class"),
        ("sensitivity(mass) >= 0.8", "no class mass: use normal, effusion, nodule"),
        ("auc >= 0.8 at fog 2", "fog is no shift: use blur"),
        ("auc >= 0.8 at rician_noise 2", "rician_noise does not fit these images"),
        ("sensitivity(Nodule) >= 0.8", "no class Nodule: did you mean nodule?"),
        ("auc >= 0.8 at Blur 2", "Blur is no shift: did you mean blur"),
        ("auc >= 0.8 at motion 2", "motion is no shift: did you mean motion_blur"),
        ("auc >= 0.8 at blur 6", "severities are 1 to 5"),
        ("auc >= 0.8 at blur", "severities are 1 to 5: write at blur 3"),
        ("auc >= 0.8 at blur mild", "severities are 1 to 5"),
        ("auc >= 0.8 at blur in sex=F", "severities are 1 to 5"),
        ("auc >= 0.8 in sex=F at blur 2", "cannot be read: write MEASURE"),
        ("auc > 0.8", "> compares nothing here: write >= or <="),
        ("auc == 0.8", "== compares nothing here"),
        ("auc >= 0,8", "0,8 is no number: write one from 0 to 1 with a point"),
        ("auc >= 80%", "80% is no number"),
        ("auc >= 80", "80 is out of reach: write a share from 0 to 1"),
        ("auc >= -0.1", "-0.1 is out of reach"),
        ("sensitivity(nodule) >= 1", "no data can tell >= 1, at the end of the scale: write a share between 0 and 1"),
        ("brier <= 0", "no data can tell <= 0"),
        ("auc_drop <= 1.0 at blur 2", "no data can tell <= 1.0, at the end of the scale: write a share between -1 and 1"),
        ("auc_drop <= 5 at blur 2", "5 is out of reach: write a share from -1 to 1"),
        ("auc >= 0.8 in gender=F", "cases are not parted by gender: use site, sex, age_band"),
        ("auc >= 0.8 in age=60", "cases are not parted by age: did you mean age_band?"),
        ("auc_drop <= 0.1", "a drop needs a shift"),
        ("auc_gain >= 0", "a gain needs a second model"),
    ],
)
def test_what_is_no_rule_is_said(rule: str, said: str) -> None:
    with pytest.raises(accept.RuleError, match="rule ") as error:
        accept.parsed(rule, NAMES, SHIFTS, against=False, columns=("site", "sex", "age_band"))
    assert said in str(error.value)
    assert "\n" not in str(error.value)
