"""Attribute inference: a release that repeats its patients tells their attributes, an honest one tells nobody's more than others'."""

import numpy as np
import pytest

from evaluation.data import Labelled
from privacy import attributes


def patients(n, seed, sexes=("F", "M")):
    """Smooth images that have nothing to do with who they are of, except for a bright corner of one sex, at the edge of what is seen."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 200, (n, 1, 16, 16)).astype(np.float64)
    sex = rng.integers(0, 2, n)
    images[sex == 1, :, :6, :6] += 55
    values = np.array(sexes)[sex]
    return Labelled.of_classes(images.astype(np.uint8), rng.integers(0, 2, n), np.arange(n), 2, {"sex": values})


@pytest.fixture(scope="module")
def sides():
    return patients(150, 0), patients(150, 1), patients(400, 2)


def test_a_release_of_the_training_images_gives_away_their_findings_and_not_those_of_others(sides):
    train, audit, teacher = sides
    found = attributes.infer(train, audit, train, teacher)
    assert found["finding"]["train"]["value"] == 1
    assert found["finding"]["difference"]["low"] > 0.3
    assert 0.35 < found["finding"]["audit"]["value"] < 0.65


def test_an_honest_release_tells_of_both_alike(sides):
    train, audit, teacher = sides
    found = attributes.infer(train, audit, patients(150, 3), teacher)
    for facts in found.values():
        assert facts["difference"]["low"] < 0 < facts["difference"]["high"]
    assert found["sex"]["values"] == 2


def test_a_classifier_of_other_patients_reads_an_attribute_that_the_release_does_not_say(sides):
    train, audit, teacher = sides
    found = attributes.infer(train, audit, train, teacher)
    assert found["sex"]["train"]["value"] > 0.9


def test_what_hardly_anybody_has_or_nobody_teaches_is_left_out(sides):
    train, audit, teacher = sides
    few = Labelled(audit.images, audit.findings, audit.groups, {"sex": np.r_[audit.attributes["sex"][:4], np.full(146, "")]})
    assert "sex" not in attributes.infer(train, few, train, teacher)
    nobody = Labelled(teacher.images[:0], teacher.findings[:0], teacher.groups[:0])
    assert set(attributes.infer(train, audit, train, nobody)) == {"finding"}
