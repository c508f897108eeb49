"""What is to be made: balanced by combination, or as a plan says; what was never seen together is made only where somebody asks for it."""

import itertools
import json
from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.conditions import Attribute, Combination, Conditions
from pipeline.config import Asked, Config
from pipeline.errors import InputError
from pipeline.together import Together
from pipeline.wanted import balanced, planned, wanted

SEEN = (((0, 0, 0), 0.5), ((1, 0, 0), 0.2), ((1, 1, 0), 0.2), ((0, 1, 0), 0.06), ((0, 1, 1), 0.04))
CHEST = Conditions(
    ("effusion", "cardiomegaly", "nodule"),
    True,
    (Attribute("sex", ("F", "M")), Attribute("severity", knots=(0.0, 0.5, 1.0))),
    tuple(Combination(*one) for one in SEEN),
)
ONE = Conditions(("normal", "effusion"))


def plan(*entries, conditions=CHEST):
    asked = [Asked.model_validate(entry) for entry in entries]
    return planned(asked, conditions, list(range(sum(one.count for one in asked))), "generate.plan")


def config(**generate):
    ingest = {"source": "phantom", "several_findings": True}
    return Config.model_validate({"name": "t", "ingest": ingest, "train": {"images": 1}, "generate": generate})


def test_every_class_as_often_and_in_turns():
    assert balanced(ONE, 3).argmax(axis=1).tolist() == [0, 1, 0, 1, 0, 1]


def test_several_findings_are_balanced_in_seen_combinations_rare_ones_first():
    made = balanced(CHEST, 40)
    counts = {row: int((made == row).all(axis=1).sum()) for row, _ in SEEN}
    assert sum(counts.values()) == len(made), "no combination that was never seen"
    # The nodule, which is the rarest, comes with cardiomegaly, which has enough by that; an effusion comes alone and with it, as seen.
    assert counts == {(0, 0, 0): 40, (1, 0, 0): 20, (1, 1, 0): 20, (0, 1, 0): 0, (0, 1, 1): 40}
    assert made.sum(axis=0).tolist() == [40, 60, 40]
    half = made[: len(made) // 2]
    for row, count in counts.items():
        assert abs((half == row).all(axis=1).sum() - count / 2) <= 1, row


def test_a_finding_of_too_few_patients_is_asked_for_with_all_else_left_open():
    rare = Conditions(("effusion", "hernia"), True, (), (Combination((0, 0), 0.7), Combination((1, 0), 0.3)))
    made = balanced(rare, 10)
    assert {row: int((made == row).all(axis=1).sum()) for row in ((0, 0), (1, 0), (-1, 1))} == {(0, 0): 10, (1, 0): 10, (-1, 1): 10}


def test_a_plan_asks_denies_and_leaves_open():
    found = plan(
        {"findings": ["effusion"], "without": ["nodule"], "attributes": {"sex": "F", "severity": 0.8}, "count": 2},
        {"attributes": {"severity": "0.25"}, "count": 1},
    )
    assert found.findings.tolist() == [[1, -1, 0]] * 2 + [[-1, -1, -1]]
    assert found.asked["sex"].tolist() == ["F", "F", ""]
    np.testing.assert_allclose(found.asked["severity"], [0.8, 0.8, 0.25])
    assert found.away(CHEST) is None, "what is denied is asked to be absent, and guidance leads away from nothing asked for"
    assert not found.unseen.any()


def test_of_one_class_an_image_the_class_is_asked_for_and_another_led_away_from():
    found = plan({"findings": ["effusion"], "without": ["normal"], "count": 1}, {"findings": ["normal"], "count": 1}, conditions=ONE)
    assert found.findings.tolist() == [[0, 1], [1, 0]]
    assert found.away(ONE).codes.tolist() == [[0], [2]]
    with pytest.raises(InputError, match="effusion \\+ normal: this model was trained on one class an image"):
        plan({"findings": ["effusion", "normal"], "count": 1}, conditions=ONE)


def test_what_was_never_seen_together_is_made_only_when_asked_and_is_marked():
    entry = {"findings": ["effusion", "nodule"], "count": 2}
    with pytest.raises(InputError, match="effusion \\+ nodule: no such combination was seen in enough training patients"):
        plan(entry)
    assert plan(entry | {"extrapolate": True}, {"findings": ["nodule"], "count": 1}).unseen.tolist() == [True, True, False]
    with pytest.raises(InputError, match="nodule \\+ no cardiomegaly"):
        plan({"findings": ["nodule"], "without": ["cardiomegaly"], "count": 1})


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ({"findings": ["mass"]}, "no finding 'mass': use effusion, cardiomegaly, nodule"),
        ({"attributes": {"sex": "X"}}, "no sex 'X': use F, M"),
        ({"attributes": {"severity": 3}}, "severity is a number from 0 to 1"),
        ({"attributes": {"severity": "much"}}, "severity is a number from 0 to 1"),
        ({"attributes": {"age": "old"}}, "no attribute 'age', but sex, severity"),
        ({"findings": ["Efusion"]}, "no finding 'Efusion': did you mean effusion\\? use effusion, cardiomegaly, nodule"),
        ({"attributes": {"sex": "f"}}, "no sex 'f': did you mean F\\? use F, M"),
        ({"attributes": {"Severty": 0.5}}, "no attribute 'Severty', did you mean severity\\? but sex, severity"),
    ],
)
def test_what_the_model_does_not_know_is_one_line(entry, why):
    with pytest.raises(InputError, match=why) as caught:
        plan(entry | {"count": 1})
    assert "\n" not in str(caught.value)


def test_a_combination_of_few_patients_tells_of_nobody():
    findings = np.repeat(np.array([[0, 0], [1, 0], [1, 1], [-1, 1]], np.int8), [40, 20, 12, 50], axis=0)
    patients = np.concatenate([np.arange(40), np.arange(20), np.arange(12) // 2, np.arange(50)])
    assert Combination.learned(findings, patients) == (Combination((0, 0), 0.555556), Combination((1, 0), 0.277778))


def test_values_of_attributes_that_no_training_patient_had_together_are_made_only_when_asked_and_are_marked():
    """All that a query leaves open may be anything, as a count over the training images has it; 10 patients are none."""
    rng = np.random.default_rng(0)
    findings = rng.integers(0, 2, (300, 2)).astype(np.int8)
    asked = {"sex": rng.choice(["F", "M", ""], 300, p=[0.6, 0.3, 0.1]), "site": rng.choice(["A", "B", "C"], 300, p=[0.6, 0.3, 0.1])}
    asked["site"][(asked["sex"] == "M") & (asked["site"] == "C")] = "A"
    patients = np.arange(300) // 2
    images = SimpleNamespace(findings=findings, asked=asked)
    learned = Conditions.learned(images, ("effusion", "nodule"), patients, several=True, names=("sex", "site"))
    told = Conditions.of_model({"classes": ["effusion", "nodule"], "conditions": json.loads(json.dumps(learned.to_model()))})
    assert told == learned
    shown = set()
    findings_of = ((-1, -1), (1, -1), (-1, 1), *itertools.product((0, 1), repeat=2))
    for sex, site, has in itertools.product(("", "F", "M"), ("", "A", "B", "C"), findings_of):
        rows = np.ones(300, bool)
        for value, column in zip((*has, sex, site), (*findings.T, *asked.values())):
            rows &= (column == value) if value not in (-1, "") else True
        enough = len(np.unique(patients[rows])) >= 11
        assert told.seen(has, {"sex": sex, "site": site}) == enough, (sex, site, has)
        shown.add(enough)
    assert shown == {True, False}
    entry = {"attributes": {"sex": "M", "site": "C"}, "count": 1}
    with pytest.raises(InputError, match="sex M \\+ site C: no such combination was seen in enough training patients"):
        plan(entry, conditions=told)
    assert plan(entry | {"extrapolate": True}, {"attributes": {"sex": "F"}, "count": 1}, conditions=told).unseen.tolist() == [True, False]


def test_some_findings_are_known_together_though_nobody_tells_of_all_of_them():
    """As in CheXpert, whose labels are mostly blank: no row tells of all, and all that 11 patients have can be asked for."""
    rng = np.random.default_rng(1)
    findings = rng.choice(np.array([-1, 0, 1], np.int8), (400, 6), p=[0.5, 0.25, 0.25])
    findings[:, 5] = -1
    findings[:4, 5] = 1
    findings[(findings[:, 0] == 1) & (findings[:, 1] == 1), 1] = -1
    patients, names = np.arange(400) // 2, tuple("abcdef")
    images = SimpleNamespace(findings=findings, asked={})
    learned = Conditions.learned(images, names, patients, several=True, names=())
    told = Conditions.of_model({"classes": names, "conditions": json.loads(json.dumps(learned.to_model()))})
    assert told == learned
    for first, second in itertools.combinations(range(6), 2):
        for one, other in itertools.product((-1, 0, 1), repeat=2):
            has = [-1] * 6
            has[first], has[second] = one, other
            rows = ((findings == has) | (np.array(has) == -1)).all(axis=1)
            assert told.seen(has, {}) == (len(np.unique(patients[rows])) >= 11), has
    with pytest.raises(InputError, match="a \\+ b: no such combination was seen"):
        plan({"findings": ["a", "b"], "count": 1}, conditions=told)
    made = wanted(config(per_class=3), told)
    assert (made.findings == 1).sum(axis=0).tolist() == [3] * 6
    assert made.unseen.tolist() == (made.findings[:, 5] == 1).tolist(), "of a finding that 2 patients had, nothing is known"


def test_of_one_class_an_image_too_an_attribute_may_never_have_been_seen_with_it():
    labels, sex = np.repeat([0, 1], 40), np.array(["F"] * 20 + ["M"] * 20 + ["F"] * 40)
    images = SimpleNamespace(findings=np.eye(2, dtype=np.int8)[labels], asked={"sex": sex})
    learned = Conditions.learned(images, ("normal", "effusion"), np.arange(80), several=False, names=("sex",))
    assert learned.together == (Together((0, 1), ("F",)), Together((1, 0), ("F",)), Together((1, 0), ("M",)))
    with pytest.raises(InputError, match="effusion \\+ sex M"):
        plan({"findings": ["effusion"], "attributes": {"sex": "M"}, "count": 1}, conditions=learned)


def test_a_plan_takes_the_place_of_per_class():
    asked = {"findings": ["nodule"], "count": 3}
    found = wanted(config(plan=[asked]), CHEST)
    assert (len(found), len(set(found.seeds))) == (3, 3)
    assert found.seeds == wanted(config(per_class=2), CHEST).seeds[:3]
    assert config(plan=[asked]).generate.images(3, True) == 3
    with pytest.raises(ValueError, match="exclude each other"):
        config(plan=[asked], per_class=1)
    with pytest.raises(ValueError, match="asked for and denied at once"):
        config(plan=[asked | {"without": ["nodule"]}])
    for entry in (
        {"text": "Small nodule", "without_text": " small, nodule."},
        {"findings": ["nodule"], "without_text": "Nodule"},
        {"without": ["nodule"], "text": "nodule"},
    ):
        with pytest.raises(ValueError, match="nodule is asked for and denied at once"):
            config(plan=[entry | {"count": 3}])


def test_prompts_are_in_the_models_words_and_negative_ones_are_led_away_from():
    reading = Conditions(("effusion", "nodule"), True, (), CHEST.combinations, ("effusion", "left", "small"), 3)
    found = plan({"text": "Small left effusion.", "without_text": "effusion", "count": 1}, {"count": 1}, conditions=reading)
    assert found.asked["text"].tolist() == ["small left effusion", ""]
    assert reading.of(found).text.tolist() == [[3, 2, 1], [0, 0, 0]]
    assert found.away(reading).text.tolist() == [[1, 0, 0], [0, 0, 0]]
    for text, why in (
        ("small zebra", "no word 'zebra'"),
        ("small small small left", "4 words, and reports of enough training patients had 3"),
    ):
        with pytest.raises(InputError, match=why):
            plan({"text": text, "count": 1}, conditions=reading)
    with pytest.raises(InputError, match=r"the text '\?!' holds no word: write what a report would say"):
        plan({"text": "?!", "count": 1}, conditions=reading)
    with pytest.raises(InputError, match=r"reads no text: it was trained without train\.text"):
        plan({"text": "small", "count": 1})


def test_a_text_is_no_attribute_and_what_is_denied_in_a_prompt_is_told_how():
    """It was taken for one, and the images were made of nothing asked for."""
    reading = Conditions(("effusion", "nodule"), True, (), CHEST.combinations, ("effusion", "left", "small"), 3)
    with pytest.raises(InputError, match="no attribute 'text', a text is asked for by --prompt, or by text in a plan"):
        plan({"attributes": {"text": "effusion"}, "count": 1}, conditions=reading)
    with pytest.raises(InputError, match=r"no word 'efusion'.* did you mean effusion\? it knows 3"):
        plan({"text": "small efusion", "count": 1}, conditions=reading)
    with pytest.raises(InputError, match=r"no word 'No'.*what is not wanted is named by --not or --negative-prompt"):
        plan({"text": "No effusion", "count": 1}, conditions=reading)


def test_a_text_that_contradicts_what_else_is_asked_for_is_an_extrapolation():
    """Rows would say no effusion, and their text an effusion, as if training had shown such images."""
    rng = np.random.default_rng(0)
    findings = rng.integers(0, 2, (200, 2)).astype(np.int8)
    side = rng.choice(["left", "right"], 200)
    texts = np.array([f"{'clear' if not has[0] else where + ' effusion'} seen" for has, where in zip(findings, side)])
    texts[np.flatnonzero(findings[:, 0] == 0)[:10]] = "effusion seen"
    images = SimpleNamespace(findings=findings, asked={"side": side, "text": texts})
    learned = Conditions.learned(images, ("effusion", "nodule"), np.arange(200), several=True, names=("side",), text=True)
    told = Conditions.of_model({"classes": ["effusion", "nodule"], "conditions": json.loads(json.dumps(learned.to_model()))})
    assert told == learned
    wrong = (
        (
            {"without": ["effusion"], "text": "effusion seen"},
            "no effusion: the word 'effusion' was not seen in enough training patients with it",
        ),
        ({"findings": ["effusion"], "text": "clear"}, "effusion: the word 'clear' was not seen"),
        ({"attributes": {"side": "left"}, "text": "right effusion"}, "side left: the word 'right' was not seen"),
    )
    for entry, why in wrong:
        with pytest.raises(InputError, match=why):
            plan(entry | {"count": 1}, conditions=told)
        assert plan(entry | {"count": 1, "extrapolate": True}, conditions=told).unseen.tolist() == [True]
    right = (
        {"findings": ["effusion"], "attributes": {"side": "left"}, "text": "left effusion"},
        {"text": "clear"},
        {"without": ["effusion"]},
    )
    assert not any(plan(entry | {"count": 1}, conditions=told).unseen.any() for entry in right)


def test_a_word_that_only_its_features_tell_is_extrapolated_to_when_asked_and_marked():
    told = Conditions(("effusion",), True, (), (Combination((1,), 1.0),), ("effusion", "small"), 3, ("hernia",), 8)
    entry = {"findings": ["effusion"], "text": "small hernia", "count": 1}
    with pytest.raises(InputError, match="the word 'hernia' was not seen in enough training patients: leave it out, or add extrapolate"):
        plan(entry, conditions=told)
    away = {"findings": ["effusion"], "without_text": "hernia", "count": 1}
    with pytest.raises(InputError, match="the word 'hernia' was not seen in enough training patients"):
        plan(away, conditions=told)
    assert plan(away | {"extrapolate": True}, conditions=told).columns["unseen"].tolist() == [True]
    found = plan(entry | {"extrapolate": True}, {"findings": ["effusion"], "without_text": "small", "count": 1}, conditions=told)
    assert told.of(found).text.tolist() == [[2, 3, 0], [0, 0, 0]]
    columns = found.columns
    assert columns["unseen"].tolist() == [True, False]
    assert columns["attribute_text"].tolist() == ["small hernia", ""]
    assert columns["attribute_without_text"].tolist() == ["", "small"]
