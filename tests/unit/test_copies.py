"""The copy search, on images whose copies are known."""

import numpy as np
import pytest
import torch

from pipeline.phantom.image import phantom_arrays
from privacy import alignment, copies, density, descriptors, power, views


@pytest.fixture(scope="module")
def phantoms():
    images, labels, patients = phantom_arrays(150, 5, 32)
    return images, labels, patients


@pytest.fixture(scope="module")
def search(phantoms):
    images, _, patients = phantoms
    kept = images[patients < 75]
    return copies.CopySearch(kept, copies.shared_structure(images), "cpu"), kept


@pytest.mark.parametrize("transform", [*power.CORE, power.rot90, power.flip_shift, power.gamma, power.inversion], ids=lambda f: f.__name__)
def test_a_transformed_copy_is_found_nearer_than_any_stranger(search, phantoms, transform):
    engine, kept = search
    images, _, patients = phantoms
    everything = np.ones(len(kept), dtype=bool)
    strangers = engine.nearest(images[patients >= 75][:40], everything)[0].distance
    made, origin = power.plant(kept, transform, 12, np.random.default_rng(1))
    found = engine.nearest(made, everything)[0]
    assert (found.index == origin).mean() >= 0.9
    assert np.quantile(found.distance, 0.9) < strangers.min()


def test_the_search_looks_only_among_what_it_is_told_to(search):
    engine, kept = search
    half = np.arange(len(kept)) < len(kept) // 2
    inside, outside = engine.nearest(kept[:6], half, ~half)
    assert inside.index.tolist() == list(range(6))
    assert inside.distance.max() < 1e-4
    assert (outside.index >= len(kept) // 2).all()
    assert outside.distance.min() > 0.01


def test_distance_ignores_brightness_and_contrast(search):
    engine, kept = search
    scaled = np.clip(kept[:4].astype(float) * 0.6 + 30, 0, 255).astype(np.uint8)
    assert engine.nearest(scaled, np.ones(len(kept), dtype=bool))[0].distance.max() < 0.01


def test_references_in_blocks_are_searched_as_all_at_once(search, phantoms, monkeypatch):
    engine, kept = search
    queries = power.plant(kept, power.shift, 5, np.random.default_rng(0))[0]
    whole = engine.candidates(queries, np.arange(len(kept)) % 3 == 0)
    monkeypatch.setattr(copies, "BLOCK", 48)
    parts = engine.candidates(queries, np.arange(len(kept)) % 3 == 0)
    assert np.array_equal(whole.index, parts.index)
    assert np.allclose(whole.distance, parts.distance, atol=1e-5)


def test_evidence_is_contrasted_with_the_querys_other_neighbours_each_counted_once():
    near = torch.tensor([[[5.0], [1.0], [3.0], [5.0], [9.0]]])
    index = torch.tensor([[7, 8, 9, 7, 4]])  # the fourth candidate repeats the first, the last is no neighbour
    neighbour = torch.tensor([[True, True, True, True, False]])
    assert copies.contrast(near, index, neighbour).squeeze().tolist() == [3.0, -3.0, 0.0, 3.0, 6.0]
    assert copies.contrast(near[:, :1], index[:, :1], neighbour[:, :1]).squeeze().tolist() == 0.0


def test_queries_are_found_in_their_order_however_many_cores_search_and_each_is_counted_once(search, phantoms):
    engine, _ = search
    queries = phantoms[0][:70]
    threads, found, told = torch.get_num_threads(), [], []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            done = []
            found.append(engine.candidates(queries, report=done.append))
            told.append(sorted(done))
    finally:
        torch.set_num_threads(threads)
    assert told == [[32, 64, 70]] * 2
    assert np.array_equal(found[0].index, found[1].index)
    assert np.allclose(found[0].evidence, found[1].evidence, atol=1e-4)


def test_every_image_is_seen_under_every_view_as_if_it_were_warped_alone():
    generator = torch.Generator().manual_seed(0)
    images, views = torch.rand(3, 2, 9, 7, generator=generator), torch.eye(2, 3) + 0.2 * torch.randn(4, 2, 3, generator=generator)
    alone = [alignment.warp(image[None], view[None]) for image in images for view in views]
    torch.testing.assert_close(alignment.turned(images, views), torch.cat(alone))


def test_alignment_undoes_a_known_warp():
    rng = np.random.default_rng(0)
    base = torch.from_numpy(rng.standard_normal((1, 1, 6, 6))).float()
    for side in (32, 64):  # in one go, and coarse to fine
        image = torch.nn.functional.interpolate(base, size=(side, side), mode="bicubic", align_corners=False)
        moved = alignment.warp(image, torch.tensor([[[0.97, 0.05, 0.06], [-0.05, 0.97, -0.05]]]))
        weight = alignment.window(side, side)
        target = alignment.normalised(image, weight)
        apart, aligned = (
            float(((alignment.normalised(one, weight) - target).square() * weight).mean())
            for one in (moved, alignment.warp(moved, alignment.aligned(moved, image, torch.eye(2, 3)[None])))
        )
        assert aligned < apart / 20


def test_blur_keeps_a_constant_and_is_the_gaussian_of_scipy():
    from scipy.ndimage import gaussian_filter

    image = np.random.default_rng(0).random((1, 1, 40, 48)).astype(np.float32)
    assert np.allclose(alignment.blur(torch.full((1, 1, 9, 7), 0.3), 2.0), 0.3)
    mine = alignment.blur(torch.from_numpy(image), 1.5).numpy()[0, 0]
    assert np.allclose(mine[10:30, 10:38], gaussian_filter(image[0, 0], 1.5, truncate=8)[10:30, 10:38], atol=1e-5)


@pytest.mark.parametrize("sigma", [0.5, 1.2, 2.0])
def test_a_blur_multiplies_by_no_subnormal_number(sigma):
    edge = torch.zeros(1, 1, 64, 64)
    edge[:, :, 10] = 1
    weights = alignment.blur(edge, sigma)[0, 0, :, 0]
    reach = (torch.arange(64) - 10).abs()
    assert (weights[reach < 8 * sigma] > 0).all()
    assert not ((weights != 0) & (weights < torch.finfo(torch.float32).tiny)).any(), "each takes a processor up to forty times as long"


def test_what_is_free_of_contrast_stays_under_inversion_and_a_bias_field(phantoms):
    image = torch.from_numpy(phantoms[0][3:4]).float() / 127.5 - 1
    field = torch.linspace(0.7, 1.3, 32)[None, None, None]
    original, inverted, biased = (descriptors.maps(one) for one in (image, -image, image * field))
    # Smoothed image, four bands, two bands over their contrast, two orientations.
    for turned, other in zip(original[7:], inverted[7:]):
        assert torch.allclose(turned, other, atol=1e-5)
    alike = [torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0) for a, b in zip(original, biased)]
    assert min(alike[5:]) > 0.9


def test_patches_beside_an_occlusion_stay_alike(phantoms):
    images = torch.from_numpy(phantoms[0][:60]).float() / 127.5 - 1
    shared = descriptors.structure(images)
    covered = images[:1].clone()
    covered[:, :, 12:20, 12:20] = 1
    alike = descriptors.similarities(descriptors.maps(covered), descriptors.maps(images[:1]), shared)[0]
    band = 2
    assert alike[band, 2] > 0.95 > alike[band, 0]  # the upper quantile of the patches, and the whole
    itself = descriptors.similarities(descriptors.maps(images[:1]), descriptors.maps(images[:1]), shared)
    assert torch.allclose(itself, torch.ones_like(itself), atol=1e-3)


def test_the_own_distance_is_that_of_a_naive_search_of_neighbours(monkeypatch):
    monkeypatch.setattr(density, "BLOCK", 16)
    rng = np.random.default_rng(0)
    points, among = rng.standard_normal((50, 4)), rng.random(50) < 0.7
    among[7] = True
    points[:3] = points[0]  # two twins each: they count as the floor
    near = density.nearest(torch.from_numpy(points).float(), torch.from_numpy(among))
    found, less = density.own_distance(*near).numpy(), density.own_distance(*near, torch.full((50,), 7)).numpy()
    for number, point in enumerate(points):
        apart = sorted((np.linalg.norm(point - other), place) for place, other in enumerate(points) if among[place] and place != number)
        for mean, left in ((found, apart), (less, [pair for pair in apart if pair[1] != 7])):
            logs = np.log(np.maximum([distance for distance, _ in left[: density.OWN]], density.FLOOR))
            assert mean[number] == pytest.approx(logs.mean(), abs=1e-4)


def test_the_own_distance_takes_as_many_neighbours_as_there_are():
    points = torch.tensor([[0.0], [2.0], [5.0]])
    near = density.nearest(points, torch.tensor([True, True, False]))
    assert density.own_distance(*near).exp().tolist() == pytest.approx([2.0, 2.0, (5 * 3) ** 0.5])
    assert density.own_distance(*near, torch.zeros(3, dtype=torch.int64)).exp().tolist() == pytest.approx([2.0, 1.0, 3.0])
    assert density.own_distance(*density.nearest(points, torch.zeros(3, dtype=torch.bool))).tolist() == [0, 0, 0]


@pytest.fixture(scope="module")
def uneven():
    """Eighty images that hardly differ, then as many that share nothing; and one more of the former, and an altered one of the latter."""
    rng = np.random.default_rng(0)
    field = lambda scale: scale * torch.nn.functional.interpolate(torch.from_numpy(rng.standard_normal((81, 1, 8, 8))), 32, mode="bicubic")  # noqa: E731
    dense, sparse = 128 + field(30)[:1] + field(5), 128 + field(30)
    queries = torch.stack([dense[80], sparse[3] + field(9)[0]])
    images = torch.cat([dense[:80], sparse[:80], queries]).clamp(0, 255).round().to(torch.uint8).numpy()
    return images[:160], images[160:]


def test_the_ratio_to_the_own_distance_tells_a_copy_where_images_are_sparse_from_a_stranger_where_they_are_dense(uneven):
    kept, queries = uneven
    found = copies.CopySearch(kept, copies.shared_structure(kept), "cpu").candidates(queries)
    plain = np.split(found.evidence, 2, axis=2)[0][:, :, -len(copies.PLAIN_GRIDS) :].max(axis=1)
    assert (plain[0] > plain[1]).all()  # by ℓ₂ the stranger is the nearer
    nearest = found.nearest(np.ones(160, bool), found.ratio)
    assert nearest.distance[1] < 0.5 < 0.8 < nearest.distance[0]
    assert nearest.index[1] == 83


def test_the_candidates_hold_the_reference_with_the_smallest_ratio(uneven):
    kept, _ = uneven
    search = copies.CopySearch(kept, copies.shared_structure(kept), "cpu")
    own = search.own[:, 0].exp().numpy()
    # Between one image of the dense part and one of the sparse part, nearer to the former.
    query = np.rint(0.6 * kept[:1] + 0.4 * kept[83:84]).astype(np.uint8)
    pooled = [torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(one).float() / 127.5 - 1, 24).flatten(1) for one in (query, kept)]
    apart = torch.cdist(*pooled)[0].numpy() / 24
    assert apart.argmin() < 80 <= (apart / own).argmin()
    assert (apart / own).argmin() in search.candidates(query).index


def test_a_query_that_is_a_reference_is_searched_for_as_if_it_were_not_there(search):
    engine, kept = search
    number = 11
    others = np.arange(len(kept)) != number
    alone = copies.CopySearch(kept, engine.shared, "cpu", others).candidates(kept[number : number + 1], others)
    found = engine.candidates(kept[number : number + 1], others, itself=np.array([number]))
    assert number not in found.index
    assert found.index.tolist() == alone.index.tolist()
    assert found.distance == pytest.approx(alone.distance, abs=1e-5)
    assert found.ratio == pytest.approx(alone.ratio, rel=1e-4)
    assert np.allclose(found.evidence, alone.evidence, atol=1e-3)


def test_small_images_that_moved_are_found(phantoms):
    """Below 32 px a move by pixels lies between the views, so that more candidates are looked at."""
    small = torch.nn.functional.interpolate(torch.from_numpy(phantoms[0]).float(), (28, 28), mode="bilinear", antialias=True)
    kept = small.round().to(torch.uint8).numpy()
    engine = copies.CopySearch(kept, copies.shared_structure(kept), "cpu")
    made, origin = power.plant(kept, power.shift, 20, np.random.default_rng(2))
    found = engine.candidates(made)
    assert found.index.shape[1] == copies.NEIGHBOURS + copies.FURTHER + copies.LOCAL + copies.PLAIN + copies.DENSE
    assert (found.nearest(np.ones(len(kept), bool)).index == origin).mean() >= 0.95


@pytest.mark.parametrize("side", [28, 32, 50])
def test_a_ramp_stays_a_ramp_at_the_coarse_grid(side):
    """Blocks of uneven size would bend it, and make another image of one that is moved."""
    ramp = torch.linspace(-1, 1, side).expand(1, 1, side, side)
    steps = views.coarse(ramp)[0, 0, 8, 2:-2].diff()
    assert steps.max() < 1.15 * steps.min()
