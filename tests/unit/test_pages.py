"""Every page that we write, in a browser: by keyboard and screen reader (axe), on a phone, on a screen, and printed."""

from __future__ import annotations

import html
import io
import os
import re
import shutil
import unicodedata
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from release_run import CLASSES, EVALUATION, STRESS
from stress_result import stress_result
from test_report import SAMPLES, results
from test_review import made_run, page_of

from pipeline.models.page import render
from pipeline.release.report import render_report

BROWSERS = ("chromium-headless-shell", "chromium", "google-chrome", "chrome")
WIDTHS = (390, 1280)
PAGES = ("pass", "fail", "inconclusive", "unfit", "stress", "review")
UNFIT = {"unfit": "was still learning after 256 images, its ceiling"}
MOMENTS = [{"images": 1000 * 2**k, "train": [0.5 / (k + 1)] * 4, "val": [0.6 / (k + 1)] * 4} for k in range(4)]
RECIPE = {"curve": MOMENTS, "chosen": {"images": 4000, "why": "the ceiling was reached"}, "fitted": {"images": 8000, "widths": [48, 96]}}
LONG = {name: f"Pneumonoultramicroscopicsilicovolcanoconiosis_of_one_lobe_{n:02d}" for n, name in enumerate(CLASSES)}
"""Names of 60 letters without a space, that differ at their ends."""


def renamed(value: Any) -> Any:
    """The same with long names for the classes."""
    if isinstance(value, dict):
        return {LONG.get(key, key): renamed(item) for key, item in value.items()}
    return LONG.get(value, value) if isinstance(value, str) else [renamed(item) for item in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A browser without a window; SYNTHCOHORT_BROWSER names one that is not on the path."""
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = os.environ.get("SYNTHCOHORT_BROWSER") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed, and SYNTHCOHORT_BROWSER names none")
    with driver.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The pages by name, as files."""
    folder = tmp_path_factory.mktemp("pages")
    unfit = {key: UNFIT for key in ("fidelity", "utility")} | {"label_fidelity": {"per_class": dict.fromkeys(EVALUATION["classes"], UNFIT)}}
    texts = {verdict: render_report(results(verdict, recipe=RECIPE), SAMPLES) for verdict in ("pass", "fail", "inconclusive")}
    texts["unfit"] = render_report(results("pass", evaluation=EVALUATION | unfit, stress={"classifier": "small"} | UNFIT), SAMPLES)
    texts["stress"] = render(stress_result(), 3)
    texts["review"] = page_of(made_run(folder / "run"))
    for name, text in texts.items():
        (folder / f"{name}.html").write_text(text)
    return {name: folder / f"{name}.html" for name in texts}


def opened(browser: Any, path: Path, width: int) -> Any:
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.goto(path.as_uri())
    return page


AT_ONCE = {("pass", 390), ("stress", 390), ("review", 1280)}
"""Pages that are looked at by whoever changes something; axe takes seconds a page."""


@pytest.mark.parametrize(
    ("name", "width"),
    [pytest.param(name, width, marks=() if (name, width) in AT_ONCE else pytest.mark.slow) for name in PAGES for width in WIDTHS],
)
def test_no_page_is_wider_than_its_screen_or_keeps_anybody_out(browser: Any, pages: dict[str, Path], name: str, width: int) -> None:
    pytest.importorskip("axe_playwright_python", reason="axe is not installed")
    page = opened(browser, pages[name], width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.add_script_tag(content=(resources.files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8"))
    found = page.evaluate("axe.run()")
    assert len(found["passes"]) > 10
    assert [(one["id"], one["nodes"][0]["html"]) for one in found["violations"] if one["impact"] in ("serious", "critical")] == []
    page.close()


@pytest.mark.parametrize("width", WIDTHS)
def test_every_check_shows_its_verdict_whole(browser: Any, pages: dict[str, Path], width: int) -> None:
    page = opened(browser, pages["fail"], width)
    rows = page.locator(".checks tr:has(td)")
    boxes = [rows.nth(row).locator(".badge").bounding_box() for row in range(rows.count())]
    assert len(boxes) == len(results("fail").gate["checks"])
    assert all(box["x"] >= 0 and box["x"] + box["width"] <= width for box in boxes)
    page.close()


@pytest.fixture(scope="module")
def long_named(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report on classes of long names, fourteen of them by class."""
    evaluation, folder = renamed(EVALUATION), tmp_path_factory.mktemp("long")
    first = evaluation["fidelity"]["per_class"][LONG[CLASSES[0]]]
    evaluation["fidelity"] |= {"per_class": {f"{LONG[CLASSES[0]][:-2]}{n}": first for n in range(10, 24)}}
    samples = {name: SAMPLES["normal"] for name in LONG.values()}
    (folder / "long.html").write_text(render_report(results("pass", evaluation=evaluation, stress=renamed(STRESS)), samples))
    return folder / "long.html"


@pytest.mark.parametrize("width", [390, 718])  # a phone, and the paper of A4 between its margins
def test_long_names_of_many_classes_push_nothing_off_the_page_or_the_plot(browser: Any, long_named: Path, width: int) -> None:
    page = opened(browser, long_named, width)
    page.emulate_media(media="screen" if width == 390 else "print")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    over = """[...document.querySelectorAll('main *')].filter(e => !(%s) && e.getBoundingClientRect().right > %d).map(e => e.outerHTML)"""
    assert page.evaluate(over % ("e.closest('.scroll')" if width == 390 else "false", width + 1)) == []
    cut = """[...document.querySelectorAll('svg text')].filter(
        e => e.getBoundingClientRect().left < e.closest('svg').getBoundingClientRect().left).map(e => e.textContent)"""
    assert page.evaluate(cut) == []
    page.close()


def test_a_class_stands_clear_of_its_pictures(browser: Any, long_named: Path) -> None:
    page = opened(browser, long_named, 1280)
    places = page.evaluate("""[...document.querySelectorAll('.class')].map(e => {
        const range = document.createRange(); range.selectNodeContents(e.querySelector('b'));
        return [range.getBoundingClientRect().right, e.querySelector('img').getBoundingClientRect().left] })""")
    assert len(places) == len(CLASSES)
    assert all(name < picture for name, picture in places)
    page.close()


def test_sealed_images_stand_above_the_synthetic_ones_of_their_class(browser: Any, pages: dict[str, Path]) -> None:
    page = opened(browser, pages["review"], 1280)
    places = page.evaluate(
        "[...document.querySelectorAll('.class')].map(e => [...e.querySelectorAll('figure')].map(f => f.getBoundingClientRect().top))"
    )
    assert places
    assert all(sealed < synthetic for sealed, synthetic in places)
    page.close()


def printed(browser: Any, path: Path) -> list[list[str]]:
    """The lines of every sheet of A4, without ligatures."""
    pypdf = pytest.importorskip("pypdf", reason="pypdf is not installed")
    page = opened(browser, path, 1280)
    margin = {"top": "12mm", "bottom": "12mm", "left": "10mm", "right": "10mm"}
    document = pypdf.PdfReader(io.BytesIO(page.pdf(format="A4", margin=margin)))
    page.close()
    texts = [unicodedata.normalize("NFKC", sheet.extract_text()) for sheet in document.pages]
    return [[line.strip() for line in text.splitlines() if line.strip()] for text in texts]


@pytest.mark.parametrize("name", PAGES)
def test_no_heading_is_left_alone_at_the_foot_of_a_sheet(browser: Any, pages: dict[str, Path], name: str) -> None:
    sheets = printed(browser, pages[name])
    headings = {html.unescape(text).strip() for text in re.findall(r"<h[123]>([^<]+)", pages[name].read_text())}
    assert len(headings & {line for lines in sheets for line in lines}) > len(headings) / 2, "the sheets' text is the page's"
    for lines in sheets:
        assert lines, "a sheet is empty"
        assert lines[-1] not in headings


def test_what_is_signed_is_one_sheet(browser: Any, pages: dict[str, Path]) -> None:
    sheets = printed(browser, pages["pass"])
    (sheet,) = [lines for lines in sheets if "Sign-off" in lines]
    assert sheet[0] == "Sign-off"
    text = " ".join(sheet)
    assert "cd" * 32 in text.replace(" ", "")
    for words in ("Verdict", "The verdict certifies", "It does not certify", "review.html", "Signature", "Second reader"):
        assert words in text
