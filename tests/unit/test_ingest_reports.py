"""Reports of a label table: what of them is kept, and one line where there is nothing to keep or no such column."""

from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.ingest.labels import Labels

REPORTS = ("Small left effusion, 12 mm, seen by Dr Roe.", "", "4711 / 03.05.2021", "No nodule. Jane Roe.")


def load(folder: Path, reports: tuple[str, ...], column: str = "report") -> Labels:
    lines = [f'{number}.png,{"ab"[number % 2]},P{number},"{text}"' for number, text in enumerate(reports)]
    (folder / "labels.csv").write_text("\n".join(["file,label,patient_id,report", *lines]))
    return Labels.load(folder / "labels.csv", ("a", "b"), report=column)


def test_a_report_is_kept_in_listed_words_and_an_empty_one_says_nothing(tmp_path: Path) -> None:
    found = load(tmp_path, REPORTS)
    said = [entry.asked["text"] for entry in found.table.values() if not isinstance(entry, str)]
    assert said == ["small left effusion seen by", "", "", "no nodule"]
    assert [note for note in found.notes if "reports" in note] == [
        "labels.csv: 2 reports hold no word of the clinical vocabulary, and say nothing"
    ]


def test_reports_in_another_language_are_told(tmp_path: Path) -> None:
    """German nouns are written as names are, and none of them is read."""
    found = load(tmp_path, ("Kein Erguss. Herz normal groß.", "Lunge frei, kein Infiltrat."))
    assert any("of the words of its reports are in the clinical vocabulary, which lists English terms" in note for note in found.notes)
    assert not any("words of its reports" in note for note in load(tmp_path, REPORTS).notes)


def test_a_column_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no column 'findings', which ingest\.report names: add it, or leave it out there") as caught:
        load(tmp_path, REPORTS, "findings")
    assert "\n" not in str(caught.value)
