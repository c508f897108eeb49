"""Acceptance rules as a person writes them: what is wrong is said of all of them at once, before anything is looked at."""

from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.models import acceptance

CLASSES = ("normal", "Effusion")


def rules(folder: Path, text: str) -> Path:
    path = folder / "rules.yaml"
    path.write_text(text)
    return path


def test_rules_are_a_list_or_stand_under_their_name(tmp_path: Path) -> None:
    sentences = ["auc >= 0.8", "sensitivity(Effusion) >= 0.85 at quantum_noise 2 in sex=F"]
    for head in ("", "rules:\n"):
        path = rules(tmp_path, head + "".join(f"- {one}\n" for one in sentences))
        assert acceptance.known(path, CLASSES, "DX", against=False) == sentences


@pytest.mark.parametrize("text", ["", "auc >= 0.8\nbrier <= 0.2\n", "- 3\n", "first: auc >= 0.8\n", "- auc >= 0.8\n" * 201])
def test_what_is_no_list_of_sentences_is_said_to_be_none(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match=r"rules\.yaml: not a list of 1 to 200 rules, each after '- '"):
        acceptance.lines(rules(tmp_path, text))


def test_every_wrong_rule_is_told_with_the_nearest_names(tmp_path: Path) -> None:
    path = rules(tmp_path, "- sensitivity(effusoin) >= 0.85\n- auc >= 0.8 at quantum-noise 2\n- auc >= 0.7\n- specifity(normal) >= 85%\n")
    with pytest.raises(InputError) as error:
        acceptance.known(path, CLASSES, "DX", against=False)
    said = str(error.value)
    assert said.count("rule '") == 3
    for mend in ("no class effusoin: did you mean Effusion?", "is no shift: did you mean quantum_noise", "did you mean specificity"):
        assert mend in said
    assert "\n" not in said


def test_of_many_wrong_rules_the_first_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"; and 3 more$"):
        acceptance.known(rules(tmp_path, "- auc > 0.8\n" * 8), CLASSES, None, against=False)


def test_what_is_not_known_yet_is_not_held_against_a_rule(tmp_path: Path) -> None:
    """Without classes any may be meant, and without a modality any shift."""
    path = rules(tmp_path, "- auc(mass) >= 0.8 at rician_noise 2\n")
    assert acceptance.known(path, (), None, against=False)
    with pytest.raises(InputError, match="rician_noise does not fit these images"):
        acceptance.known(path, (), "DX", against=False)
    assert acceptance.known(path, (), "MR", against=False)
    with pytest.raises(InputError, match="no class mass: use normal, Effusion"):
        acceptance.known(path, CLASSES, "MR", against=False)
