"""The training loop: exact resumption, streaming, accumulation, class balance, learning, clear failure."""

import dataclasses

import numpy as np
import pytest
import torch

from pipeline.diffusion.batches import Batches, class_balanced_cdf
from pipeline.diffusion.conditioning import Condition
from pipeline.diffusion.layers import Expand, shuffle, unshuffle
from pipeline.diffusion.objectives import Denoiser
from pipeline.diffusion.training import PERSISTENT, BatchTooLarge, Recipe, Training, learning_rate_factor
from pipeline.diffusion.unet import UNet

RECIPE = Recipe(images=16 * 24, batch=16, learning_rate=2e-3, label_dropout=0.1, augment=0.2, balance=0.5, ema=0.1, snapshots=2)
IMAGES = np.random.default_rng(0).integers(0, 256, (40, 1, 16, 16), dtype=np.uint8)
LABELS = (np.arange(40) % 4 == 0).astype(np.int64)


def make(seed: int = 0, recipe: Recipe = RECIPE, dropout: float = 0.1, images: np.ndarray = IMAGES, streamed: bool = False) -> Training:
    torch.manual_seed(seed)
    network = UNet(channels=1, classes=2, size=16, widths=(16, 32), blocks=1, attention=(4,), patch=2, dropout=dropout)
    denoiser = Denoiser(network, torch.zeros(1, 16, 16), 0.5)
    return Training(denoiser, images if streamed else torch.from_numpy(images.copy()), Condition.of_classes(LABELS, 2), recipe, seed=3)


def trained(training: Training) -> dict[str, torch.Tensor]:
    training.run()
    return training.averaged()


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


@pytest.mark.parametrize("stop", [1, 7, 23])
def test_stopped_and_resumed_anywhere_gives_the_same_bits(stop):
    straight = make()
    straight.run()
    first = make()
    first.run(until=stop)
    saved = {name: value.clone() for name, value in first.state().items()}
    second = make(seed=9)
    second.load(saved)
    second.run()
    assert_same(straight.averaged(), second.averaged())
    assert_same(straight.snapshot(), second.snapshot())
    for before, after in zip(straight.parameters, second.parameters):
        assert torch.equal(before, after)


@pytest.mark.parametrize("streamed", [False, True])
def test_a_training_that_restarts_in_place_gives_the_bits_of_a_new_one(streamed):
    other, labels = IMAGES[:30, :, ::-1].copy(), 1 - LABELS[:30]
    given = other if streamed else torch.from_numpy(other)
    fresh = make(seed=9)
    fresh = Training(fresh.denoiser, given, Condition.of_classes(labels, 2), RECIPE, seed=17)
    again = make(streamed=streamed)
    places = [value.data_ptr() for value in again.parameters]
    again.run(until=11)
    again.skipped += 1
    again.denoiser.load_state_dict(make(seed=9).denoiser.state_dict())
    again.restart(given, Condition.of_classes(labels, 2), seed=17)
    losses: list[list[float]] = [[], []]
    for training, found in zip((fresh, again), losses):
        training.run(every=5, report=lambda step, loss, found=found: found.append(loss))
    assert losses[0] == losses[1]
    assert_same(fresh.state(), again.state())
    assert_same(fresh.averaged(), again.averaged())
    assert_same(fresh.snapshot(), again.snapshot())
    assert places == [value.data_ptr() for value in again.parameters]


def test_a_streamed_set_trains_to_the_same_bits_as_a_resident_one():
    assert_same(trained(make()), trained(make(streamed=True)))


def test_sixteen_bits_train_like_the_eight_that_they_repeat_and_keep_what_eight_cannot(float32):
    wide = IMAGES.astype(np.uint16) * 257
    resident, streamed = trained(make(images=wide)), trained(make(images=wide, streamed=True))
    assert_same(resident, streamed)
    narrow = trained(make())
    for name, value in narrow.items():
        torch.testing.assert_close(resident[name], value, atol=5e-5, rtol=1e-4)  # v / 65535 rounds otherwise than v / 255
    batches = Batches(
        torch.from_numpy(np.full((1, 1, 1, 2), [0, 40_001], np.uint16)), Condition.of_classes(np.zeros(1), 1), 1, 0.0, 0, "cpu"
    )
    expected = torch.tensor([-1.0, 40_001 / 32767.5 - 1])
    torch.testing.assert_close(batches.to_unit(batches.at(0)[0]).flatten(), expected)


def test_accumulated_gradients_are_those_of_the_whole_batch(float32):
    whole = trained(make(dropout=0.0))
    parts = trained(make(dropout=0.0, recipe=dataclasses.replace(RECIPE, accumulate=4)))
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, atol=2e-5, rtol=1e-3)


def test_checkpointed_activations_change_no_gradient():
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        network = UNet(
            channels=1, classes=2, size=16, widths=(16, 32), blocks=1, attention=(), patch=2, dropout=0.3, checkpointing=checkpointing
        )
        torch.manual_seed(1)
        network.head.weight.data.normal_()
        network(torch.ones(2, 1, 16, 16), torch.zeros(2), Condition.of_classes(torch.tensor([0, 1]), 2)).square().sum().backward()
        gradients.append([p.grad for p in network.parameters() if p.grad is not None])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_training_lowers_the_loss():
    recipe = Recipe(images=16 * 120, batch=16, learning_rate=3e-3, label_dropout=0.1, augment=0, balance=0, ema=0.1)
    training = make(recipe=recipe, images=np.full_like(IMAGES, 200))
    losses = []
    training.run(every=20, report=lambda step, loss: losses.append(loss))
    assert losses[-1] < losses[0] - 0.5


def test_a_step_without_a_finite_gradient_changes_no_weight_and_is_counted():
    training = make()
    training.run(until=3)
    before = {name: value.clone() for name, value in training.state().items()}
    right = training.loss
    training.loss = lambda *inputs: right(*inputs) * float("nan")
    training.run(until=5)
    after = training.state()
    changed = {name for name in before if not torch.equal(before[name], after[name]) and not name.startswith("average")}
    assert changed == {"step", "skipped", "skipped_in_a_row"}
    assert int(training.skipped) == 2
    training.loss = right
    training.run(until=6)
    assert int(training.skipped_in_a_row) == 0
    assert not torch.equal(training.state()["weight.0"], before["weight.0"])


def test_a_diverged_training_says_so_instead_of_going_on():
    training = make()
    with torch.no_grad():
        training.parameters[0].fill_(float("nan"))
    with pytest.raises(FloatingPointError, match=f"{PERSISTENT} steps in a row had no finite gradient, up to image"):
        training.run(every=PERSISTENT)


@pytest.mark.parametrize("room", [11, 1, 0])
def test_out_of_memory_names_the_batch_that_fits(room):
    training = make()
    right = training.denoiser.loss

    def limited(images, *rest):
        if len(images) > room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return right(images, *rest)

    training.loss = training.denoiser.loss = limited
    with pytest.raises(BatchTooLarge) as caught:
        training.run()
    assert (caught.value.asked, caught.value.fits) == (16, room)
    assert all(p.grad is None for p in training.parameters)


def test_what_is_frozen_stays_and_is_part_of_the_result():
    training = make()
    training.denoiser.network.stem.requires_grad_(False)
    training = Training(training.denoiser, torch.from_numpy(IMAGES), Condition.of_classes(LABELS, 2), RECIPE, seed=3)
    before = training.denoiser.network.stem.weight.clone()
    averaged = trained(training)
    assert torch.equal(averaged["network.stem.weight"], before)
    assert averaged.keys() == training.denoiser.state_dict().keys()


@pytest.mark.parametrize("upsample", ["convolve", "shuffle"])
@pytest.mark.parametrize(("dims", "size"), [(2, 28), (2, 30), (3, 12), (3, 14)])
def test_the_network_takes_images_and_volumes_of_any_size(dims, size, upsample):
    layout = {"channels": 3, "classes": 2, "size": size, "dims": dims, "patch": 2}
    network = UNet(**layout, widths=(16, 32), blocks=2, attention=(6, 8), dropout=0.0, upsample=upsample)
    x = torch.randn(2, 3, *(size - axis for axis in range(dims)))
    assert network(x, torch.zeros(2), Condition.of_classes(torch.tensor([0, 2]), 2)).shape == x.shape


def test_a_volume_without_depth_structure_is_denoised_like_its_slice_by_the_matching_kernels():
    torch.manual_seed(0)
    settings = {"channels": 1, "classes": 2, "size": 8, "widths": (16,), "blocks": 1, "attention": (), "patch": 1, "dropout": 0.0}
    flat, deep = UNet(dims=2, **settings), UNet(dims=3, **settings)
    flat.head.weight.data.normal_()
    deep.load_state_dict({name: in_the_middle_slice(value) for name, value in flat.state_dict().items()})
    image = torch.randn(2, 1, 8, 8)
    volume = image[:, :, None].expand(-1, -1, 8, -1, -1)
    sigma, labels = torch.zeros(2), Condition.of_classes(torch.tensor([0, 1]), 2)
    expected = flat(image, sigma, labels)[:, :, None].expand(-1, -1, 8, -1, -1)
    torch.testing.assert_close(deep(volume, sigma, labels), expected, atol=1e-4, rtol=1e-4)


def in_the_middle_slice(weight: torch.Tensor) -> torch.Tensor:
    """A 2-D kernel as a 3-D one that looks at its own slice only."""
    if weight.ndim != 4:
        return weight
    before = weight.shape[-1] // 2
    return torch.nn.functional.pad(weight[:, :, None], (0, 0, 0, 0, before, before))


@pytest.mark.parametrize(("dims", "transposed"), [(2, torch.nn.functional.conv_transpose2d), (3, torch.nn.functional.conv_transpose3d)])
def test_expanding_the_grid_is_a_transposed_convolution_of_stride_two(dims, transposed):
    torch.manual_seed(0)
    expand = Expand(dims, 6, 5)
    x = torch.randn(2, 6, *[4, 3, 2][:dims])
    kernel = expand.conv.weight.reshape(5, *[2] * dims, 6).movedim(-1, 0)
    expected = transposed(x, kernel, stride=2) + expand.conv.bias.reshape(5, *[2] * dims).repeat(1, *x.shape[2:])
    torch.testing.assert_close(expand(x), expected)


def test_shuffling_a_volume_back_gives_it_again_and_keeps_neighbours_together():
    volume = torch.arange(2 * 1 * 4 * 6 * 8.0).reshape(2, 1, 4, 6, 8)
    blocks = unshuffle(volume, 2)
    assert torch.equal(blocks[0, :, 0, 0, 0], volume[0, 0, :2, :2, :2].flatten())
    assert torch.equal(shuffle(blocks, 2), volume)


@pytest.mark.parametrize(("balance", "share"), [(0.0, 0.9), (1.0, 0.5), (0.5, 0.75)])
def test_balance_evens_out_the_classes(balance, share):
    labels = torch.tensor([0] * 90 + [1] * 10)
    cdf = class_balanced_cdf(labels, balance)
    drawn = torch.searchsorted(cdf, torch.rand(100_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    assert float((labels[drawn] == 0).double().mean()) == pytest.approx(share, abs=0.01)
    assert int(drawn.max()) < 100


@pytest.mark.parametrize(("balance", "share"), [(0.0, 16 / 20), (1.0, 0.5)])
def test_near_duplicates_are_drawn_as_one_image_and_count_as_one_in_their_class(balance, share):
    labels = torch.tensor([0] * 20 + [1] * 4)
    groups = np.array([5] * 5 + [-1] * 15 + [-1] * 4)  # 20 images of class 0 in 16 groups
    cdf = class_balanced_cdf(labels, balance, groups)
    probability = torch.diff(cdf, prepend=cdf.new_zeros(1)).numpy()
    np.testing.assert_allclose(probability[:20].sum(), share)
    np.testing.assert_allclose(probability[:5].sum(), probability[5])
    np.testing.assert_allclose(probability[:5], probability[0])
    alone = class_balanced_cdf(labels, balance, np.full(24, -1))
    assert torch.equal(alone, class_balanced_cdf(labels, balance))


def test_a_training_draws_a_group_as_often_as_one_image():
    groups = np.where(np.arange(40) < 20, 0, -1)
    training = Training(make().denoiser, IMAGES, Condition.of_classes(LABELS, 2), dataclasses.replace(RECIPE, balance=0.0), 3, groups)
    drawn = torch.cat([training.batches.draw(step) for step in range(400)])
    assert float((drawn < 20).double().mean()) == pytest.approx(1 / 21, abs=0.01)


def test_a_class_that_does_not_occur_is_never_drawn():
    cdf = class_balanced_cdf(torch.tensor([0, 2, 2]), 1.0)
    np.testing.assert_allclose(cdf.numpy(), [0.5, 0.75, 1.0])


def scheduled(steps: int = 1000, **settings: float) -> list[float]:
    recipe = dataclasses.replace(RECIPE, images=16 * steps, **settings)
    return [learning_rate_factor(step, recipe) for step in range(steps)]


def test_the_learning_rate_rises_holds_and_decays_to_zero():
    factors = scheduled()
    assert factors[0] == pytest.approx(0.02)
    assert factors[300] == 1
    assert factors[999] == pytest.approx(1 / 400)
    assert max(factors) == 1


def test_after_its_plateau_the_learning_rate_falls_with_the_inverse_square_root():
    factors = scheduled(decay=0.0, plateau=16 * 200)
    assert set(factors[100:201]) == {1.0}
    assert factors[800] == pytest.approx(0.5)


def test_without_a_decay_any_step_may_be_the_last():
    assert set(scheduled(decay=0.0)[100:]) == {1.0}
