"""ingest.mask: rectangles of every image that are blanked before anything looks at it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from pydicom.sequence import Sequence

from pipeline.config.ingest import IngestConfig
from pipeline.ingest.deidentify.allow_list import describe
from pipeline.ingest.deidentify.blank import Rectangle, masked
from pipeline.ingest.readers import dicom
from pipeline.ingest.readers.geometry import TURNS, Turn
from pipeline.ingest.standardize import Target
from pipeline.ingest.tasks import Task
from pipeline.ingest.work import Settings, work
from tests.benchmarks.hostile_files import KEY, Everything, data_of, header
from tests.benchmarks.text_pictures import ink
from tests.unit.test_ultrasound import item

WHOLE = (0, 0, 1, 1)


@pytest.mark.parametrize(
    ("rectangle", "rows", "columns"),
    [
        ((0, 0, 1, 0.1), slice(0, 10), slice(0, 200)),
        ((0, 0.9, 1, 1), slice(90, 100), slice(0, 200)),
        ((0.25, 0.5, 0.5, 0.75), slice(50, 75), slice(50, 100)),
        ((0, 0, 0.001, 0.001), slice(0, 1), slice(0, 1)),  # every pixel that it touches
        ((0.7, 0, 1, 1), slice(0, 100), slice(140, 200)),  # .7 * 200 is not quite 140
        ((0.299, 0.299, 0.301, 0.301), slice(29, 31), slice(59, 61)),
    ],
)
@pytest.mark.parametrize("shape", [(1, 100, 200), (3, 100, 200), (1, 4, 100, 200)])
def test_a_rectangle_of_shares_becomes_padding_in_every_plane(
    rectangle: Rectangle, rows: slice, columns: slice, shape: tuple[int, ...]
) -> None:
    pixels = np.ones(shape, np.float32)
    expected = pixels.copy()
    expected[..., rows, columns] = np.nan
    np.testing.assert_array_equal(masked(pixels, [rectangle]), expected)
    assert not np.isnan(pixels).any()


def test_one_mask_fits_images_of_any_size_and_several_rectangles_add_up() -> None:
    for height, width in ((64, 64), (501, 333), (2000, 1000)):
        blank = np.isnan(masked(np.zeros((1, height, width), np.float32), [(0, 0, 1, 0.1), (0.5, 0.5, 1, 1)]))
        assert blank.mean() == pytest.approx(0.1 + 0.25, abs=0.01)
    pixels = np.zeros((1, 8, 8), np.float32)
    assert masked(pixels, ()) is pixels


@pytest.mark.parametrize(
    "rectangle",
    [(0, 0, 0, 1), (0, 0.5, 1, 0.5), (0.6, 0, 0.4, 1), (-0.1, 0, 1, 0.1), (0, 0, 1, 1.1), (0, 0, 512, 40), (0, -1e-9, 1, 1), WHOLE],
)  # fmt: skip
def test_what_is_no_rectangle_is_refused_in_one_line(rectangle: Rectangle) -> None:
    with pytest.raises(ValidationError, match=r"rectangle 2 must be \[left, top, right, bottom\] as shares"):
        IngestConfig.model_validate({"source": "phantom", "mask": [(0, 0, 1, 0.1), rectangle]})


def test_medmnist_takes_no_mask() -> None:
    with pytest.raises(ValidationError, match="does not go with MedMNIST"):
        IngestConfig.model_validate({"source": "medmnist", "dataset": "breastmnist", "mask": [(0, 0, 1, 0.1)]})


def screen(**attributes: Any) -> bytes:
    """The file of a picture of 240 x 320 with a name at its top, dark below."""
    rng = np.random.default_rng(1)
    pixels = rng.normal(800, 12, (240, 320))
    pixels[60:200, 80:260] += 1200
    letters = ink("DOE^JANE 4711", "DejaVuSans-Bold", 18, True)
    pixels[6 : 6 + letters.shape[0], 40 : 40 + letters.shape[1]] += 2500 * letters
    return data_of(header(pixels.clip(0, 4095).astype(np.uint16), **{"WindowCenter": 2048, "WindowWidth": 4096, **attributes}))


def collected(root: Path, data: bytes, **settings: Any) -> tuple[dict[str, Any], list[Any]]:
    (root / "a.dcm").write_bytes(data)
    made = Settings(root, dicom.read_each, Everything(), KEY, Target(64), patients=False, **settings)  # type: ignore[arg-type]
    return work(Task(("a.dcm",)), made)


def test_a_masked_banner_no_longer_quarantines_and_is_black_in_what_is_kept(tmp_path: Path) -> None:
    data = screen()
    left, _ = collected(tmp_path, data)
    assert "text was found" in left["left_out"][0]
    kept, images = collected(tmp_path, data, mask=((0.0, 0.0, 1.0, 0.15),))
    assert kept["left_out"] == []
    top = (64 - 48) // 2
    assert (images[0][0, top : top + 7] == 0).all()
    assert images[0][0, top + 9 : top + 46].min() > 0


def test_an_ultrasound_screen_is_kept_without_what_lies_outside_its_region(tmp_path: Path) -> None:
    regions = Sequence([item((80, 60, 259, 199))])
    data = screen(Modality="US")
    left, _ = collected(tmp_path, data)
    assert left["left_out"][0].startswith("ultrasound")
    for policy in ("strict", "search", "declared"):
        kept, images = collected(tmp_path, screen(Modality="US", SequenceOfUltrasoundRegions=regions), burned_in=policy)
        assert kept["left_out"] == []
        # 140 rows of .3 mm and 180 columns of .2 mm: the rows fill the square.
        assert kept["rows"][0]["spacing_mm"] == pytest.approx(140 * 0.3 / 64)
        seen = images[0][0][:, np.flatnonzero(images[0][0].any(axis=0))]
        assert seen.min() > 100  # nothing of the dark screen


def test_text_inside_the_region_still_quarantines(tmp_path: Path) -> None:
    regions = Sequence([item((20, 2, 300, 230))])
    left, _ = collected(tmp_path, screen(Modality="US", SequenceOfUltrasoundRegions=regions))
    assert "text was found" in left["left_out"][0]


def test_the_mask_is_taken_from_the_whole_picture_before_the_crop(tmp_path: Path) -> None:
    regions = Sequence([item((20, 2, 300, 230))])
    kept, _ = collected(tmp_path, screen(Modality="US", SequenceOfUltrasoundRegions=regions), mask=((0.0, 0.0, 1.0, 0.15),))
    assert kept["left_out"] == []


def test_the_card_says_what_is_blanked_and_cropped() -> None:
    assert "2 rectangles" in " ".join(describe(mask=2))
    assert "rectangles" not in " ".join(describe())
    assert "largest two-dimensional region" in " ".join(describe("declared"))
    json.dumps(describe(mask=1))


@pytest.mark.parametrize("name", TURNS)
def test_a_mask_lies_where_the_source_has_it_however_the_image_is_turned(name: str) -> None:
    """Blanked as stored and then turned, or turned and then blanked: the same pixels are left."""
    pixels = np.arange(1, 1 + 12 * 20, dtype=np.float32).reshape(1, 12, 20)
    box, turn = (0.1, 0.25, 0.4, 0.5), Turn.named(name)
    first = turn.applied(masked(pixels, [box]))
    np.testing.assert_array_equal(masked(turn.applied(pixels), [turn.rectangle(box)]), first)
