"""Reports in a closed vocabulary: what a cohort's own words are, and that nobody's name, number or date comes in among them."""

import numpy as np
import pytest

from pipeline.clinical_text import LISTED, LONGEST, closed, unknown, vocabulary
from pipeline.ingest.attributes import stated
from pipeline.ingest.table import Table
from pipeline.phantom.anatomy import draw_patients

PATIENTS = [f"P{number}" for number in range(40)]


def words_of(*reports):
    """The cohort's own words, where each patient has one of these reports in turn."""
    given = [reports[number % len(reports)] for number in range(len(PATIENTS))]
    return set(vocabulary(given, PATIENTS)) - set(LISTED)


def test_frequent_words_enter_and_rare_ones_do_not():
    assert words_of("Chest, portable film, sternotomy sutures seen.") == {"film", "portable", "sternotomy", "sutures"}
    assert words_of("Chest, portable film, stable, with sutures seen.") == {"film", "portable"}, "what comes after it may be a name"
    few = ["a sternotomy" if number < 10 else "an effusion" for number in range(40)]
    assert "sternotomy" not in vocabulary(few, PATIENTS)
    assert "sternotomy" not in vocabulary(["a sternotomy"] * 40, ["P1"] * 40), "of one patient, however often"


@pytest.mark.parametrize(
    "report",
    [
        "Jane Roe, small effusion.",
        "Small effusion in Mrs. Roe today.",
        "Small effusion, reported by dr jane roe.",
        "Small effusion, compared with Jane's film of Roe.",
        "SMALL EFFUSION IN JANE ROE.",
        "Small effusion. Roe. Jane.",
        "small effusion, patient jane roe, seen.",
        "Small effusion. Discussed with roe. Dictated: jane roe.",
        "Small effusion, seen with jane roe.",
        "Effusion seen with jane roe on the ward, small.",
        "Effusion, for jane van der roe, small.",
        "Small effusion, stable, roe.",
        "roe: Small effusion, stable.",
        "Effusion, jane and roe agree, small.",
    ],
)
def test_names_that_many_reports_have_stay_out(report):
    """The radiologist's own stands under every report, and most write it with a capital or after a title."""
    own = words_of(report)
    assert not own & {"jane", "roe", "jane's"}
    assert not {"jane", "roe"} & set(closed(report, frozenset(vocabulary([report] * 40, PATIENTS))).split())


@pytest.mark.parametrize(
    "name", ["כהן", "田中", "محمد", "ᴊᴀɴᴇ", "ꓙꓮꓠꓰ", "𝐉𝐚𝐧𝐞", "Ｊａｎｅ", "Ja\u00adne", "\u200bJ\u200bane", "J\u0301ane", "\u202eenaJ"]
)
def test_names_in_letters_without_capitals_and_in_odd_forms_of_letters_stay_out(name):
    report = f"The portable film shows {name} a small effusion."
    assert words_of(report) <= {"portable", "film", "shows"}


def test_a_word_is_the_same_however_its_letters_are_stored():
    said = [
        "Small, the film u\u0308ber all shows it.",
        "Small, the ｆｉｌｍ über all shows it.",
        "Small, the fi\u00adlm über all shows it.",
    ]
    assert {"über", "film"} <= words_of(*said)
    assert not {"fi", "lm", "ber"} & words_of(*said)


def test_a_name_in_small_letters_stays_out_though_the_words_around_it_come_in():
    """Planted in every other report, in three ways; what half of the patients have elsewhere is a word."""
    said = [
        "The portable film shows an effusion.",
        "A film, taken upright, shows a portable device below.",
        "Small, shows upright film of device there.",
    ]
    planted = ["seen with jane roe", "for jane roe", "and jane roe agrees here"]
    reports = [f"{said[number % 3]} Small, {planted[number % 3]}." if number % 2 else said[number % 3] for number in range(120)]
    own = set(vocabulary(reports, [f"P{number}" for number in range(120)])) - set(LISTED)
    assert not own & {"jane", "roe"}
    assert {"film", "shows", "upright", "portable"} <= own


def test_reports_in_small_letters_tell_no_name_from_a_word_and_add_none():
    """As some public sets have them: no title, and a radiologist under half of the reports."""
    assert words_of("small effusion, portable film. roe md", "no effusion") == set()
    assert words_of("small effusion. roe md", "No effusion on the portable film seen. Roe MD") == {"film", "portable"}


def test_no_number_no_date_and_nothing_with_a_figure():
    report = "Nodule of 12 mm on 03.05.2021, accession A4711x, T12 and 3rd rib, tel. 030-1234, small."
    said = closed(report, frozenset(vocabulary([report] * 40, PATIENTS)))
    assert not any(letter.isdigit() for letter in said)
    assert said.split()[:3] == ["nodule", "of", "mm"] or said.split()[:2] == ["nodule", "of"]
    assert "a4711x" not in said
    assert said.endswith("small")


def test_planted_identities_of_the_phantom_never_enter():
    from pipeline.phantom.dicom import planted_identities

    patients = draw_patients(60, 3, several=True)
    planted = sorted(value for value in planted_identities(patients, 3) if value.replace(" ", "").isalpha())
    reports = [f"{visit.report} Signed {planted[7]}, seen {planted[3]}." for patient in patients for visit in patient.visits]
    owners = [str(patient.index) for patient in patients for _ in patient.visits]
    words = frozenset(vocabulary(reports, owners))
    kept = " ".join(closed(report, words) for report in reports)
    for name in (planted[3], planted[7]):
        assert not {part.lower() for part in name.split()} & (set(kept.split()) - set(LISTED))
    assert {"pleural", "effusion", "left", "right", "cardiomegaly", "nodule"} <= set(kept.split())


def test_a_report_keeps_its_order_and_its_beginning():
    assert closed("Large LEFT effusion; zebra, small nodule.", frozenset(LISTED)) == "large left effusion small nodule"
    assert len(closed("effusion " * 100, frozenset(LISTED)).split()) == LONGEST
    assert closed("", frozenset(LISTED)) == ""


def test_what_a_prompt_says_in_other_words_is_told():
    assert unknown("Small zebra in the 3rd zone", frozenset(LISTED)) == ["zebra", "3rd"]
    assert unknown("small left effusion, right nodule.", frozenset(LISTED)) == []


@pytest.mark.parametrize(
    ("report", "said"),
    [
        ("<p>No effusion</p><br>Lungs clear &amp; hila&nbsp;normal", "no effusion lungs clear hila normal"),
        ("Pleural/pericardial effusion,left.No pneumothorax", "pleural pericardial effusion left no pneumothorax"),
        ("1.No effusion(left) 2.Heart normal--size normal", "no effusion left heart normal size normal"),
        ("No\u00adrmal \ufb01ndings, no *effusion*", "normal findings no effusion"),
        ("nodule <5 mm and >3 mm, left", "nodule mm and mm left"),
    ],
)
def test_no_word_is_lost_for_want_of_a_space_or_for_how_it_was_typed(report, said):
    """A lost "no" turns what a report says into its contrary."""
    assert closed(report, frozenset(LISTED) | {"mm"}) == said


@pytest.mark.parametrize("prompt", ["left/right effusion", "effusion(left)", "effusion.Left nodule", "small-effusion", "a_b effusion"])
def test_what_is_not_told_of_a_prompt_is_read_of_it(prompt):
    words = frozenset(LISTED)
    said = prompt.replace("/", " ").replace("(", " ").replace(".", " ").split()
    assert len(closed(prompt, words).split()) + len(unknown(prompt, words)) == len(said)


def test_addresses_and_names_without_spaces_stay_out():
    """A radiologist's address is amid many reports, in small letters."""
    report = "On portable film seen, jane.roe@ward.example, /files/jane/roe.dcm, www.jane.roe.example, small effusion, film seen."
    assert words_of(report) == {"film", "portable"}
    assert not words_of("Small effusion, Dr.Roe agrees here.", "Small roe here, seen, roe seen.") & {"roe"}
    upper = "<BR>small effusion, portable film, roe, film seen<BR>"
    assert words_of(upper) == set(), "the capitals of HTML are none of the report"


def test_the_list_holds_plain_words_alone():
    assert all(word.isalpha() and word == word.lower() for word in LISTED)
    assert len(LISTED) > 400
    assert np.mean([len(word) for word in LISTED]) > 4


@pytest.mark.parametrize(("ids", "own"), [(None, False), ([f"P {n}" for n in range(20)], True), ([f"P {n % 2}" for n in range(20)], False)])
def test_a_table_without_patients_or_with_few_of_them_adds_no_word(ids, own):
    """Twenty images of one patient are no twenty patients, nor are spellings of one id."""
    columns = ("file", "report") if ids is None else ("file", "report", "patient_id")
    reports = ["Chest, portable film, small effusion."] * 20
    rows = [[f"{place}.png", report, *([] if ids is None else [ids[place]])] for place, report in enumerate(reports)]
    found = Table("labels.csv", columns, rows, list(range(2, 22)))
    told, notes = stated(found, {"text": ()}, "report")
    assert [row["text"] for row in told] == ["chest portable film small effusion" if own else "chest small effusion"] * 20
    assert len(notes) == (ids is None)
    spelled = Table("labels.csv", columns, [[*row[:2], ("P-1", "p1", "P 1")[place % 3]] for place, row in enumerate(rows)], found.lines)
    assert ids is None or stated(spelled, {"text": ()}, "report")[0][0]["text"] == "chest small effusion"
