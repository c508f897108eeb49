"""The picture of the most exposed images: each beside the released image that is nearest to it, and no more than a page of them."""

import numpy as np
import pytest

from pipeline import exposed
from pipeline.exposed import CHUNK, MOST, picture


@pytest.mark.parametrize("channels", [1, 3])
def test_each_image_stands_beside_the_nearest_released_one(channels, monkeypatch):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (60, channels, 16, 16), dtype=np.uint8)
    released = np.concatenate([rng.integers(0, 256, (CHUNK + 5, channels, 16, 16), dtype=np.uint8), 255 - images])
    released[CHUNK + 2] = np.clip(images[7].astype(int) + rng.integers(-9, 9, images[7].shape), 0, 255)
    assert exposed._nearest(images[7:8], released)[0] == CHUNK + 2
    loops = [np.square(released.astype(float) - image).sum(axis=(1, 2, 3)).argmin() for image in images[:5]]
    assert exposed._nearest(images[:5], released).tolist() == loops
    sheet = np.asarray(picture(images, {"one": np.array([7]), "all": np.arange(60)}, released))
    first = sheet[48 : 48 + 48, 8 : 8 + 48, 0]
    assert np.array_equal(first[::3, ::3][:16, :16], images[7, 0])
    monkeypatch.setattr(exposed, "MOST", 8)
    assert len(np.asarray(picture(images, {"all": np.arange(60)}, released))) < len(sheet)
    assert MOST == 48
