"""The shifts against numpy's corruptions and closed forms, and what holds for all of them."""

import io
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from evaluation.corruptions import CORRUPTIONS
from evaluation.optics import filtered, filtered_along, jpeg
from evaluation.shifts import KNOWN, SHIFTS, Draw, drawn, fitting, shift

N, SIDE = 12, 40


@pytest.fixture(scope="module")
def images() -> Tensor:
    """Discs on a ramp with a fine texture, away from black and white, no square, in colour."""
    rng = np.random.default_rng(0)
    row, column = np.mgrid[:SIDE, : SIDE + 8] / SIDE
    centre = rng.uniform(0.3, 0.7, (2, N, 1, 1))
    disc = (np.hypot(row - centre[0], column - centre[1]) < 0.22).astype(float)
    grey = 0.3 + 0.2 * row + 0.25 * disc + 0.02 * rng.standard_normal((N, SIDE, SIDE + 8))
    tint = np.array([1.0, 0.8, 0.9]).reshape(1, 3, 1, 1)
    return torch.from_numpy((grey[:, None] * tint).astype(np.float32))


def draw_for(name: str, images: Tensor, first: int = 0) -> Draw:
    seeds = range(first, first + len(images))
    values = torch.from_numpy(drawn(name, seeds))
    parameters = {key: values[:, k].reshape(-1, 1, 1, 1) for k, key in enumerate(SHIFTS[name].ranges)}

    def normal(k: int) -> Tensor:
        return torch.stack([torch.randn(images.shape[1:], generator=torch.Generator().manual_seed(1000 * k + seed)) for seed in seeds])

    return Draw(parameters, normal)


def neutral(images: Tensor) -> Draw:
    return Draw({"angle": torch.full((len(images), 1, 1, 1), 0.7)}, lambda k: torch.zeros_like(images))


@pytest.mark.parametrize("name", SHIFTS)
def test_a_higher_severity_is_more_of_the_same_and_stays_within_the_range(name: str, images: Tensor) -> None:
    draw = draw_for(name, images)
    found = [shift(images, name, severity, draw) for severity in range(1, 6)]
    distances = [float((one - images).square().mean()) for one in found]
    assert distances == sorted(distances)
    assert distances[0] > 0
    assert distances[4] > 1.5 * distances[0]
    assert all(one.shape == images.shape and one.min() >= 0 and one.max() <= 1 for one in found)


@pytest.mark.parametrize("name", SHIFTS)
def test_an_image_is_shifted_alike_alone_and_beside_others(name: str, images: Tensor) -> None:
    together = shift(images, name, 3, draw_for(name, images))
    alone = shift(images[5:6], name, 3, draw_for(name, images[5:6], first=5))
    torch.testing.assert_close(together[5:6], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "corruption"),
    [("blur", "gaussian_blur"), ("contrast", "contrast_down"), ("gibbs_ringing", "gibbs_ringing")],
)
def test_what_draws_nothing_is_numpys_corruption(name: str, corruption: str, images: Tensor) -> None:
    grey = images[:, :1]
    strength = CORRUPTIONS[corruption].strengths[2]
    expected = CORRUPTIONS[corruption].function(grey.numpy(), strength, np.random.default_rng(0))
    np.testing.assert_allclose(shift(grey, name, 3, neutral(grey)), expected.clip(0, 1), atol=2e-5)


def test_noise_has_the_variance_that_its_law_gives() -> None:
    flat = torch.full((1, 1, 300, 300), 0.36)
    rng = torch.Generator().manual_seed(3)
    fields = [torch.randn(flat.shape, generator=rng) for _ in range(2)]
    draw = Draw({"grain": torch.full((1, 1, 1, 1), 0.005)}, lambda k: fields[k])
    assert float(shift(flat, "quantum_noise", 2, draw).std()) == pytest.approx(0.09 * 0.6, rel=0.02)  # s sqrt(x)
    assert float(shift(flat, "noise", 2, draw).std()) == pytest.approx(0.06, rel=0.02)
    assert float(shift(flat, "ct_noise", 2, draw).std()) == pytest.approx(0.06, rel=0.05)
    squares = shift(flat, "rician_noise", 3, draw).square().mean()
    assert float(squares) == pytest.approx(0.36**2 + 2 * 0.1**2, rel=0.02)  # E m² = A² + 2 σ² (Gudbjartsson & Patz 1995)
    assert float(shift(flat, "speckle", 3, draw).mean()) == pytest.approx(0.36, rel=0.05)


def test_scatter_divides_the_contrast_of_small_things_by_one_plus_its_ratio() -> None:
    x = torch.full((1, 1, 128, 128), 0.4)
    x[:, :, 62:65, 62:65] = 0.6
    draw = Draw({"width": torch.full((1, 1, 1, 1), 0.15)}, lambda k: x)
    after = shift(x, "scatter", 3, draw)
    assert float(after[0, 0, 63, 63] - after[0, 0, 20, 20]) == pytest.approx(0.2 / 2, rel=0.03)


def test_collimation_leaves_the_share_of_the_area_that_it_does_not_cover() -> None:
    x = torch.full((8, 1, 200, 200), 0.5)
    after = shift(x, "collimation", 4, draw_for("collimation", x))
    torch.testing.assert_close((after > 0).float().mean(dim=(1, 2, 3)), torch.full((8,), 0.7**2), atol=0.01, rtol=0)


def test_a_marker_is_a_letter_in_an_upper_corner() -> None:
    x = torch.zeros((40, 1, 140, 140))
    lit = shift(x, "marker", 5, draw_for("marker", x))[:, 0] > 0.9
    assert not lit[:, 70:].any()
    assert not lit[:, :, 45:95].any()
    dots = lit.flatten(1).sum(dim=1)
    assert len(dots.unique()) >= 2, "there are two letters"
    assert set((lit[:, :, :70].flatten(1).any(dim=1)).tolist()) == {True, False}, "and two sides"


@pytest.mark.parametrize("side", [20, 28, 224])
def test_a_letter_has_the_same_share_of_an_image_of_any_size(side: int) -> None:
    """Of 35 dots an L has 11 and an R 18; of small images a dot is less than a pixel, and none may fall between two."""
    x = torch.zeros((12, 1, side, side + 4))
    draw = draw_for("marker", x)
    dots = torch.where(draw["letter"].flatten() > 0, 18, 11)
    for severity, height in enumerate(SHIFTS["marker"].strengths, 1):
        light = shift(x, "marker", severity, draw).sum(dim=(1, 2, 3)) / 0.97
        torch.testing.assert_close(light, dots * (height * side / 7) ** 2, rtol=0.01, atol=0)


def test_a_patch_stands_where_the_marker_does_with_about_as_much_light() -> None:
    x = torch.zeros((40, 1, 140, 140))
    letter, patch = (shift(x, name, 5, draw_for(name, x))[:, 0] for name in ("marker", "patch"))
    light = patch.sum(dim=(1, 2)) / letter.sum(dim=(1, 2))
    assert 0.4 < float(light.min()) <= float(light.max()) < 2
    sides = [image[:, :, :70].flatten(1).sum(dim=1) > image[:, :, 70:].flatten(1).sum(dim=1) for image in (letter, patch)]
    assert torch.equal(*sides)


def test_motion_ghosts_repeat_the_image_at_their_distance() -> None:
    x = torch.zeros((1, 1, 100, 100))
    x[0, 0, 50, 50] = 1
    after = shift(x, "motion_ghosts", 3, Draw({"distance": torch.full((1, 1, 1, 1), 0.2)}, lambda k: x))
    ghosts = [float(after[0, 0, row, 50]) for row in (30, 50, 70)]
    assert ghosts == pytest.approx([0.16, 1, 0.16], abs=1e-3)  # x + s/2 (up + down)


def spectrum_filtered(x: Tensor, transfer: Callable[..., Any], *, wrap: bool = False) -> np.ndarray:
    """The naive way: the whole mirrored image in one transform, in double precision."""
    height, width = x.shape[2:]
    above, left = (0, 0) if wrap else (height // 2, width // 2)
    padded = np.pad(x.double().numpy(), ((0, 0), (0, 0), (above, above), (left, left)), mode="reflect")
    rows, columns = padded.shape[2:]
    spectrum = np.fft.rfft2(padded) * transfer(np.fft.fftfreq(rows)[:, None], np.fft.rfftfreq(columns)[None, :])
    found = np.fft.irfft2(spectrum, s=(rows, columns))
    return np.asarray(found[:, :, above : above + height, left : left + width])


@pytest.mark.parametrize("size", [(40, 48), (41, 37), (40, 37), (2, 2), (1, 5)])
@pytest.mark.parametrize("wrap", [False, True])
def test_filters_are_products_with_the_spectrum_however_they_are_computed(size: tuple[int, int], wrap: bool) -> None:
    x = torch.rand((3, 2, *size), generator=torch.Generator().manual_seed(0))
    along = (np.random.default_rng(0).uniform(1, 3, (3, 1, 1, 1))).astype(np.float32)

    def slanted(fy: Any, fx: Any) -> Any:
        return 1 / (1 + (fy + fx * along) ** 2)

    found = filtered(x, lambda fy, fx: 1 / (1 + (fy + fx * torch.from_numpy(along)) ** 2), wrap=wrap)
    np.testing.assert_allclose(found.numpy(), spectrum_filtered(x, slanted, wrap=wrap), atol=1e-5)
    for dim in (2, 3):
        found = filtered_along(x, lambda f: 1 / (1 + 9 * f**2), dim, wrap=wrap)
        expected = spectrum_filtered(x, lambda fy, fx, dim=dim: 1 / (1 + 9 * (fy if dim == 2 else fx) ** 2), wrap=wrap)
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def disc_of_light(x: Tensor, strength: float, draw: Draw) -> np.ndarray:
    height, width = x.shape[2:]
    row, column = np.mgrid[:height, :width] + 0.5
    wide = strength * 5 / 7 * height
    left = np.where(draw["side"].numpy() > 0, 0.97 * width - wide, 0.03 * width)
    distance = np.hypot(row - (0.04 + strength / 2) * height, column - left - wide / 2) / height
    return np.asarray(x.numpy() + np.clip(0.97 - x.numpy(), 0, None) * np.exp(-((distance / (0.22 * strength)) ** 2) / 2))


SPECTRA: dict[str, Callable[..., Any]] = {
    "blur": lambda s, d, width, height: lambda fy, fx: np.exp(-2 * (np.pi * s * width) ** 2 * (fy**2 + fx**2)),
    "motion_blur": lambda s, d, width, height: lambda fy, fx: np.sinc(s * width * (fy * np.sin(d["angle"]) + fx * np.cos(d["angle"]))),
    "sharp_kernel": lambda s, d, width, height: lambda fy, fx: 1 + s * (1 - np.exp(-((fy**2 + fx**2) / 0.15**2))),
    "slice_thickness": lambda s, d, width, height: lambda fy, fx: np.sinc(s * width * fy) + 0 * fx,
    "gibbs_ringing": lambda s, d, width, height: lambda fy, fx: (np.abs(fy) <= 0.5 * (1 - s) + 1e-6) & (np.abs(fx) <= 0.5 * (1 - s) + 1e-6),
    "motion_ghosts": lambda s, d, width, height: lambda fy, fx: 1 + s * np.cos(2 * np.pi * fy * d["distance"] * height) + 0 * fx,
}


@pytest.mark.parametrize("name", [*SPECTRA, "scatter", "patch"])
@pytest.mark.parametrize("severity", [1, 5])
def test_shifts_are_what_their_formula_gives_over_the_whole_image(name: str, severity: int, images: Tensor) -> None:
    """However they are taken apart to be faster."""
    s, draw = SHIFTS[name].strengths[severity - 1], draw_for(name, images)
    (height, width), d = images.shape[2:], {key: value.double().numpy() for key, value in draw.parameters.items()}
    if name == "patch":
        expected = disc_of_light(images, s, draw)
    elif name == "scatter":
        veil = spectrum_filtered(images, lambda fy, fx: np.exp(-2 * (np.pi * d["width"] * width) ** 2 * (fy**2 + fx**2)))
        expected = (images.numpy() + s * veil) / (1 + s)
    else:
        expected = spectrum_filtered(images, SPECTRA[name](s, d, width, height), wrap=name == "motion_ghosts")
    np.testing.assert_allclose(shift(images, name, severity, draw).numpy(), expected.clip(0, 1), atol=1e-5)


@pytest.mark.parametrize("quality", [60, 25, 7])
def test_jpeg_is_what_a_codec_leaves(quality: int, images: Tensor) -> None:
    """Pillow's integer transform rounds a grey level here and there."""
    grey = images[:4, :1]
    for one, ours in zip((grey[:, 0].numpy() * 255).round().astype(np.uint8), jpeg(grey, quality)):
        buffer = io.BytesIO()
        Image.fromarray(one).save(buffer, "JPEG", quality=quality)
        theirs = np.asarray(Image.open(buffer), np.float64)
        assert np.abs(ours[0].clamp(0, 1).numpy() * 255 - theirs).mean() < 0.6


def test_stains_that_do_not_change_leave_the_image_and_more_haematoxylin_darkens_it(images: Tensor) -> None:
    one = torch.zeros((N, 1, 1, 1))
    same = shift(images, "stain", 3, Draw({"haematoxylin": one, "eosin": one}, lambda k: images))
    torch.testing.assert_close(same, images.clamp(0, 1), atol=1e-4, rtol=1e-4)
    more = shift(images, "stain", 3, Draw({"haematoxylin": one + 1, "eosin": one}, lambda k: images))
    assert more.mean() < images.mean() - 0.02


def test_a_rotation_by_the_strengths_angle_keeps_lengths_where_the_image_is_no_square() -> None:
    x = torch.zeros((1, 1, 80, 160))
    x[0, 0, 39:41, 119:121] = 1  # 40 pixels to the right of the centre
    after = shift(x, "rotation", 5, Draw({"direction": torch.ones((1, 1, 1, 1))}, lambda k: x))[0, 0]
    row, column = divmod(int(after.argmax()), 160)
    assert math.hypot(row - 39.5, column - 79.5) == pytest.approx(40, abs=1.5)
    assert abs(math.degrees(math.atan2(row - 39.5, column - 79.5))) == pytest.approx(26, abs=2)


def test_every_modality_has_shifts_of_its_own_and_grey_images_none_of_colour() -> None:
    general = fitting("", 3)
    assert "blur" in general
    assert all(len(fitting(modality, 1)) > len(general) for modality in KNOWN)
    assert "stain" in fitting("SM", 3)
    assert "stain" not in fitting("SM", 1)
    assert "rician_noise" not in fitting("DX", 1)


def test_what_is_drawn_hangs_on_the_images_seed_and_the_shift_alone() -> None:
    several = drawn("kspace_spike", [7, 8, 2**62])
    np.testing.assert_array_equal(several[1:2], drawn("kspace_spike", [8]))
    assert len(np.unique(several)) == 9
    radius, angle, phase = drawn("kspace_spike", range(2000)).T
    assert 0.08 <= radius.min() < radius.max() <= 0.4
    assert angle.mean() == pytest.approx(math.pi / 2, abs=0.06)
    assert phase.std() == pytest.approx(1 / math.sqrt(12), abs=0.01)


def test_what_there_is_not_is_said(images: Tensor) -> None:
    with pytest.raises(ValueError, match="no shift 'fog'"):
        shift(images, "fog", 1, neutral(images))
    with pytest.raises(ValueError, match="severity 6"):
        shift(images, "blur", 6, neutral(images))
    with pytest.raises(ValueError, match="1 channels"):
        shift(images[:, :1], "stain", 1, neutral(images))
