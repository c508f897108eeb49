"""The report's balance: what was asked for, generated and released, by class or finding and by what images have together."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from release_run import LENIENT, config, finished, make_context, synthetic_images
from test_report import results

from pipeline.config import Asked
from pipeline.images import ImageSet
from pipeline.release import balance
from pipeline.release.page import check_page
from pipeline.release.report import render_report
from pipeline.release.results import Results
from pipeline.release.verify import verify
from privacy import limits

NAMES = ["effusion", "nodule", "scar"]
COHORT = {"classes": NAMES, "counts": {"train": {"effusion": 1234, "nodule": 10, "scar": 96}}}


def found(verdict: str = "pass", several: bool = True, plan: tuple[Asked, ...] = (), **changed: Any) -> Results:
    settings = config(several=several)
    if plan:
        generate = settings.generate.model_copy(update={"plan": plan, "per_class": None})
        settings = settings.model_copy(update={"generate": generate})
    return replace(results(verdict, cohort=COHORT), config=settings, **changed)


def test_no_small_group_of_patients_is_described() -> None:
    counts = {"train": {"normal": 1234, "rare": 10, "few": 11, "some": 96}}
    told = found(several=False, cohort={"classes": list(counts["train"]), "counts": counts})
    assert [row[:3] for row in balance.balance(told)] == [
        ("normal", "about 1,230", "2"),
        ("rare", "fewer than 11", "2"),
        ("few", "about 10", "2"),
        ("some", "about 100", "2"),
    ]
    assert balance.balance(replace(told, cohort={})) == []
    assert balance.combinations(told) == []


@pytest.mark.parametrize(("verdict", "out"), [("pass", ("3", "2", "2", "1")), ("inconclusive", ("0",) * 4), ("fail", ("0",) * 4)])
def test_findings_count_wherever_they_come_together_and_nothing_is_released_without_a_pass(verdict: str, out: tuple[str, ...]) -> None:
    told = found(verdict, made={(1, 0, 0): 1, (1, 1, 0): 2, (0, 0, 1): 2, (0, 0, 0): 1})
    assert balance.balance(told) == [
        ("effusion", "about 1,230", "2", "3", out[0]),
        ("nodule", "fewer than 11", "2", "2", out[1]),
        ("scar", "about 100", "2", "2", out[2]),
        ("no finding", "–", "2", "1", out[3]),
    ]
    together = balance.combinations(told)
    assert [row[:3] for row in together] == [
        ("scar", "–", "2"),
        ("effusion + nodule", "–", "2"),
        ("no finding", "–", "1"),
        ("effusion", "–", "1"),
    ]
    assert [row[3] for row in together] == [row[2] if verdict == "pass" else "0" for row in together]
    assert ("None is released" in balance.explained(told)) == (verdict != "pass")


def test_of_a_plan_each_combination_was_asked_for() -> None:
    plan = (
        Asked(findings=("effusion",), without=("nodule", "scar"), count=4),
        Asked(findings=("effusion",), without=("nodule", "scar"), attributes={"sex": "F"}, count=3),
        Asked(findings=("nodule", "scar"), count=2),
        Asked(without=("scar",), count=1),
        Asked(count=5),
    )
    made = {(1, 0, 0): 7, (-1, 1, 1): 2, (-1, -1, 0): 1, (-1, -1, -1): 5}
    told = found(plan=plan, made=made)
    assert [row[2:] for row in balance.balance(told)] == [("7", "7", "7"), ("2", "2", "2"), ("2", "2", "2")]
    assert balance.combinations(told) == [
        ("effusion", "7", "7", "7"),
        ("all left open", "5", "5", "5"),
        ("nodule + scar, all else left open", "2", "2", "2"),
        ("no scar, all else left open", "1", "1", "1"),
    ]
    assert balance.explained(told) == "A plan of 5 kinds was asked for. All that were generated are released."
    single = found(several=False, plan=(Asked(findings=("nodule",), without=("scar",), count=4),), made={(0, 1, 0): 4})
    assert [row[2:] for row in balance.balance(single)] == [("0", "0", "0"), ("4", "4", "4"), ("0", "0", "0")]


def test_of_a_foreign_set_nobody_knows_what_was_asked_for() -> None:
    told = found(made={(1, 0, 0): 3, (0, 1, 0): 1})
    generate = told.config.generate.model_copy(update={"per_class": None, "import_from": Path("x")})
    told = replace(told, config=told.config.model_copy(update={"generate": generate, "train": None}))
    assert [row[2:4] for row in balance.balance(told)] == [("–", "3"), ("–", "1"), ("–", "0")]
    assert "not known here" in balance.explained(told)


def test_the_commonest_combinations_have_a_line_and_the_others_one_together() -> None:
    names = [f"finding {letter}" for letter in "abcde"]
    made = {tuple(int(bit) for bit in f"{number:05b}"): number + 1 for number in range(32)}
    rows = balance.combinations(found(cohort={"classes": names, "counts": {}}, made=made))
    assert len(rows) == balance.COMMONEST + 1
    assert rows[0] == (" + ".join(names), "–", "32", "32")
    assert rows[-1] == ("12 further combinations", "–", str(sum(range(1, 13))), str(sum(range(1, 13))))


@pytest.mark.parametrize("several", [True, False])
def test_it_stands_in_a_release_and_counts_its_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, several: bool) -> None:
    monkeypatch.setattr(limits, "MAX_COPY_RATE", LENIENT)
    ctx = finished(make_context(tmp_path / "run", several=several))
    page = (ctx.out / "report.html").read_text()
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", page)]
    made: ImageSet = synthetic_images(several=several)
    for place, name in enumerate(made.classes):
        count = str(int((made.findings[:, place] == 1).sum()))
        assert [name, "about 220", "2", count, count] in rows
    kinds = np.unique(made.findings, axis=0)
    for kind in kinds:
        count = str(int((made.findings == kind).all(axis=1).sum()))
        line = [html.escape(balance.named(list(made.classes), tuple(kind.tolist()))), "–", count, count]
        assert (line in rows) == several
    assert verify(ctx.out) == []
    check_page(render_report(found(made={(1, 0, 0): 1}), {}), found().gate, {})
