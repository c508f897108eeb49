"""PNG, JPEG and TIFF pictures: every mode, and the reason for those left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.ingest.readers import pictures
from pipeline.ingest.readers.reading import Quarantined, Reading

GREY = (np.arange(32 * 24).reshape(32, 24) % 251).astype(np.uint8)


def read(path: Path) -> Reading:
    [found] = pictures.read([path])
    assert isinstance(found, Reading), found
    return found


def reason(path: Path) -> str:
    [found] = pictures.read([path])
    assert isinstance(found, Quarantined)
    return found.reason


@pytest.mark.parametrize("ending", ["png", "tif", "bmp"])
def test_grey_pictures(tmp_path: Path, ending: str) -> None:
    Image.fromarray(GREY).save(tmp_path / f"a.{ending}")
    if ending == "bmp":
        assert "not a PNG, JPEG or TIFF" in reason(tmp_path / "a.bmp")
        return
    found = read(tmp_path / f"a.{ending}")
    np.testing.assert_array_equal(found.pixels[0], GREY)
    assert (found.low, found.high, found.spacing) == (0, 255, None)


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_every_picture_of_a_file_is_read_and_none_hides_behind_the_first(tmp_path: Path, ending: str) -> None:
    pages = [GREY, GREY[::-1], GREY // 2]
    first, *others = map(Image.fromarray, pages)
    first.save(tmp_path / f"a.{ending}", save_all=True, append_images=others)
    found = list(pictures.read([tmp_path / f"a.{ending}"]))
    assert [one.frame for one in found if isinstance(one, Reading)] == [0, 1, 2]
    np.testing.assert_array_equal([one.pixels[0] for one in found if isinstance(one, Reading)], pages)


def test_sixteen_bits_are_kept(tmp_path: Path) -> None:
    deep = GREY.astype(np.uint16) * 16 + 7
    for name in ("a.png", "a.tif"):
        Image.fromarray(deep).save(tmp_path / name)
        found = read(tmp_path / name)
        np.testing.assert_array_equal(found.pixels[0], deep)
        assert found.low < found.high <= deep.max()


def test_colour_palettes_transparency_and_grey_saved_as_colour(tmp_path: Path) -> None:
    colour = np.stack([GREY, GREY[::-1], GREY // 2], axis=-1)
    Image.fromarray(colour).save(tmp_path / "rgb.png")
    np.testing.assert_array_equal(read(tmp_path / "rgb.png").pixels, colour.transpose(2, 0, 1))
    Image.fromarray(np.stack([GREY] * 3, axis=-1)).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read(tmp_path / "grey.png").pixels, GREY[None])
    Image.fromarray(colour).quantize(16).save(tmp_path / "palette.png")
    assert read(tmp_path / "palette.png").pixels.shape == (3, 32, 24)
    clear = np.concatenate([colour, np.zeros((32, 24, 1), np.uint8)], axis=-1)
    clear[:16, :, 3] = 255
    Image.fromarray(clear).save(tmp_path / "clear.png")
    found = read(tmp_path / "clear.png").pixels
    np.testing.assert_array_equal(found[:, :16], colour.transpose(2, 0, 1)[:, :16])
    assert found[:, 16:].max() == 0


def test_a_camera_held_upright_is_turned(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees to show
    Image.fromarray(GREY).save(tmp_path / "a.jpg", exif=exif, quality=95)
    assert read(tmp_path / "a.jpg").pixels.shape[-2:] == (24, 32)


def test_pages_are_images_each(tmp_path: Path) -> None:
    pages = [Image.fromarray(GREY), Image.fromarray(GREY[::-1].copy())]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    found = [one for one in pictures.read([tmp_path / "a.tif"]) if isinstance(one, Reading)]
    assert [one.frame for one in found] == [0, 1]
    np.testing.assert_array_equal(found[1].pixels[0], GREY[::-1])


def test_what_cannot_be_read_says_why(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("hello")
    assert "not a PNG, JPEG or TIFF" in reason(tmp_path / "a.png")
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (64, 64), dtype=np.uint8)).save(tmp_path / "b.png")
    (tmp_path / "c.png").write_bytes((tmp_path / "b.png").read_bytes()[:-2000])
    assert "cut short" in reason(tmp_path / "c.png")
    large = bytearray((tmp_path / "b.png").read_bytes())
    large[16:24] = (20000).to_bytes(4, "big") * 2
    (tmp_path / "d.png").write_bytes(large)
    assert reason(tmp_path / "d.png")
    assert "permissions" in reason(tmp_path / "absent.png")
