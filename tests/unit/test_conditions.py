"""Names to codes: classes, several findings, attributes; what is unknown, rare, or beyond what training images showed."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from evaluation.data import Labelled
from pipeline.conditions import Attribute, Conditions
from pipeline.diffusion.conditioning import Condition
from pipeline.diffusion.unet import UNet
from pipeline.errors import InputError

SIDE = Attribute("side", ("left", "right"))
SEVERITY = Attribute("severity", knots=(0.0, 0.5, 2.0))
CHEST = Conditions(("effusion", "nodule"), True, (SIDE, SEVERITY))


def images(findings, **asked):
    findings = np.array(findings, np.int8)
    return Labelled(np.zeros((len(findings), 1, 8, 8), np.uint8), findings, np.arange(len(findings)), asked=asked)


def test_present_absent_and_unknown_are_three_codes_and_attributes_follow():
    severity = np.array([0.25, 1.25, np.nan, 9.0], np.float32)
    condition = CHEST.of(images([[1, 0], [-1, 1], [0, 0], [1, 1]], side=np.array(["left", "", "right", "elsewhere"]), severity=severity))
    assert condition.sizes == (2, 2, 2, 3)
    assert condition.codes.tolist() == [[1, 0, 0, 0], [2, 1, 2, 1], [0, 0, 1, 3], [1, 1, 2, 2]]
    torch.testing.assert_close(condition.between[:, 3], torch.tensor([0.5, 0.5, 0.0, 0.0]))
    assert condition.null().codes.tolist() == [[2, 2, 2, 3]] * 4
    assert condition.only(CHEST.field("severity")).codes.tolist() == [[2, 2, 2, 0], [2, 2, 2, 1], [2, 2, 2, 3], [2, 2, 2, 2]]
    assert condition.only(CHEST.field("nodule"), 1).codes.tolist() == [[2, 1, 2, 3]] * 4


def test_one_class_an_image_is_one_field_and_more_than_a_class_is_refused():
    one = Conditions(("normal", "effusion"))
    condition = one.of(images([[0, 1], [1, 0]]))
    expected = Condition.of_classes(np.array([1, 0]), 2)
    assert (condition.codes.tolist(), condition.sizes, condition.between) == (expected.codes.tolist(), expected.sizes, None)
    with pytest.raises(InputError, match="several findings, or none"):
        one.of(images([[1, 1]]))


def test_what_a_model_knows_survives_its_description():
    assert Conditions.of_model(json.loads(json.dumps({"classes": ["effusion", "nodule"], "conditions": CHEST.to_model()}))) == CHEST
    assert Conditions.of_model({"classes": ["a", "b"]}) == Conditions(("a", "b"))


def test_values_of_few_patients_are_not_learned_and_knots_are_octiles_without_the_extremes():
    patients = np.arange(60) // 2
    side = np.array(["left"] * 25 + ["right"] * 24 + ["both"] * 10 + [""])
    assert Attribute.learned("side", side, patients).values == ("left", "right")
    numbers = np.linspace(0, 1, 2000, dtype=np.float32)
    knots = Attribute.learned("severity", numbers, np.arange(2000) // 2).knots
    np.testing.assert_allclose(knots, [numbers[20], *np.linspace(0, 1, 9)[1:-1], numbers[-21]], atol=1e-5)
    with pytest.raises(InputError, match="side has no two values that 11 training patients have"):
        Attribute.learned("side", np.array(["left"] * 60), patients)
    with pytest.raises(InputError, match="the images have no view, but side"):
        Conditions.learned(images([[1, 0]], side=np.array(["left"])), ("a", "b"), np.arange(1), several=True, names=["view"])


def test_no_number_of_fewer_than_eleven_patients_is_learned():
    """The oldest, the tallest, the heaviest: a model's description would single them out."""
    ages = np.array([*np.linspace(40, 60, 30), *[104.0] * 25, 3.0, 4.0], np.float32)
    patients = np.array([*range(30), *[30] * 25, 31, 32])
    knots = Attribute.learned("years", ages, patients).knots
    assert 40 <= knots[0] < knots[-1] <= 60
    with pytest.raises(InputError, match="years has no two values that 11 training patients have"):
        Attribute.learned("years", ages[:40], np.arange(40) % 10)


def test_a_continuous_value_is_linear_between_its_knots_and_flat_beyond_them():
    torch.manual_seed(0)
    network = UNet(channels=1, classes=CHEST.sizes, size=8, widths=(16,), blocks=1, attention=(), patch=1, dropout=0.0)
    severity = np.array([0.0, 0.5, 0.125, 2.0, 7.0, -3.0], np.float32)
    condition = CHEST.condition(np.ones((6, 2), np.int8), {"severity": severity})
    asked = network.condition._asked(condition)
    torch.testing.assert_close(asked[2], 0.75 * asked[0] + 0.25 * asked[1])
    torch.testing.assert_close(asked[3:], asked[[3, 3, 0]])
    rows = network.condition.label.weight
    # effusion present, nodule present, side unknown, severity at its first knot: one row of each field's part of the table
    torch.testing.assert_close(asked[0], rows[1] + rows[4] + rows[8] + rows[9])


@pytest.mark.parametrize("probability", [0.0, 0.2])
def test_fields_are_dropped_together_or_any_number_of_them_is_kept_equally_often(probability):
    many = CHEST.condition(np.ones((40_000, 2), np.int8), {"severity": np.full(40_000, 0.3), "side": np.full(40_000, "left")})
    codes = many.dropped(probability, torch.Generator().manual_seed(0)).codes
    kept = codes != torch.tensor(many.sizes)
    counts = (torch.bincount(kept.sum(dim=1), minlength=5) / len(kept)).tolist()
    each = (1 - probability) / 5
    assert counts == pytest.approx([probability + each, each, each, each, each] if probability else [0, 0, 0, 0, 1], abs=0.01)
    # Whichever they are: a field alone is met as often as any other.
    alone = kept[kept.sum(dim=1) == 1].float().mean(dim=0).tolist()
    assert not probability or alone == pytest.approx([0.25] * 4, abs=0.02)
    assert not (many.codes == torch.tensor(many.sizes)).any()


def test_a_rare_finding_is_evened_out_and_images_with_none_are_their_own_stratum():
    findings = np.array([[1, 0], [1, 1], [1, 0], [0, 0], [-1, -1]], np.int8)
    assert CHEST.condition(findings, {}).strata.tolist() == [0, 1, 0, 2, 2]


def test_what_one_field_asks_for_is_kept_in_every_way_of_taking_rows():
    condition = CHEST.condition(np.array([[1, 0], [0, 1], [1, 1]], np.int8), {"severity": np.array([0.25, 1.0, 2.0])})
    held = condition.clone()
    held.copy_(condition.null())
    assert held.between.sum() == 0
    assert condition.take(torch.tensor([2, 0])).codes[:, 0].tolist() == [1, 1]
    joined = condition.joined(condition.null(), condition)
    assert len(joined) == 9
    torch.testing.assert_close(joined.between[6:], condition.between)
    assert [len(part) for part in condition.chunk(2)] == [2, 1]


READING = Conditions(("effusion", "nodule"), True, vocabulary=("effusion", "left", "nodule", "small"), longest=4)


def test_texts_are_places_in_the_vocabulary_and_no_text_is_nothing():
    texts = np.array(["small left effusion", "", "nodule zebra small left effusion nodule"])
    condition = READING.condition(np.full((3, 2), -1, np.int8), {"text": texts})
    assert condition.text.tolist() == [[4, 2, 1, 0], [0] * 4, [3, 4, 2, 1]]
    assert condition.only(READING.field("text")).text is condition.text
    assert not condition.only(READING.field("nodule"), 1).text.any()
    assert not condition.null().text.any()
    assert condition.joined(condition.null()).text.shape == (6, 4)
    dropped = READING.condition(np.ones((9000, 2), np.int8), {"text": np.full(9000, "small nodule")}).dropped(
        0.2, torch.Generator().manual_seed(0)
    )
    gone = ~dropped.text.any(dim=1)
    assert float(gone.float().mean()) == pytest.approx(0.2 + 0.8 / 2, abs=0.02)
    # One in five loses everything; of the others the text goes every second time, whatever else is kept.
    alone = (dropped.codes[gone] == 2).all(dim=1)
    assert float(alone.float().mean()) == pytest.approx((0.2 + 0.4 / 3) / 0.6, abs=0.02)


def test_every_second_text_is_read_in_part_and_one_that_denies_is_not():
    reading = Conditions(("a", "b"), True, vocabulary=("effusion", "left", "no", "small"), longest=5)
    texts = np.repeat(["small left effusion", "no effusion", ""], 6000)
    condition = reading.condition(np.ones((18_000, 2), np.int8), {"text": texts})
    told = condition.dropped(0.2, torch.Generator().manual_seed(0)).text
    runs, counts = told[:6000][told[:6000].any(dim=1)].unique(dim=0, return_counts=True)
    # Begins anywhere, and has any of the lengths that there are from there on: of three words a third of a third is the whole.
    share = dict(zip(map(tuple, runs.tolist()), (counts / counts.sum()).tolist()))
    expected = {
        (4, 2, 1, 0, 0): 1 / 2 + 1 / 18,
        (4, 2, 0, 0, 0): 1 / 18,
        (4, 0, 0, 0, 0): 1 / 18,
        (2, 1, 0, 0, 0): 1 / 12,
        (2, 0, 0, 0, 0): 1 / 12,
        (1, 0, 0, 0, 0): 1 / 6,
    }
    assert share == pytest.approx(expected, abs=0.03)
    denied = told[6000:12_000]
    assert denied[denied.any(dim=1)].unique(dim=0).tolist() == [[3, 1, 0, 0, 0]]
    assert not told[12_000:].any()
    assert torch.equal(condition.dropped(0.0, torch.Generator().manual_seed(0)).text, condition.text)


def test_words_of_few_patients_are_not_read_and_a_text_is_needed():
    texts = np.array(["small effusion"] * 30 + ["small sternotomy" + " small" * 9] * 10)
    learned = Conditions.learned(images([[1, 0]] * 40, text=texts), ("a", "b"), np.arange(40), several=True, names=(), text=True)
    assert (learned.vocabulary, learned.longest) == (("effusion", "small"), 2), "nor is told how long the texts of ten patients are"
    assert learned.names == ("a", "b", "text")
    with pytest.raises(InputError, match="no text in the clinical vocabulary"):
        Conditions.learned(images([[1, 0]] * 40), ("a", "b"), np.arange(40), several=True, names=(), text=True)


def test_a_network_reads_words_by_their_order_and_not_what_lies_behind_them():
    torch.manual_seed(0)
    network = UNet(channels=1, classes=(2, 2), size=8, widths=(16,), blocks=1, attention=(), patch=1, dropout=0.0, vocabulary=4).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.abs().sum() == 0 and not name.endswith("words.weight"):
                parameter.normal_(std=0.1)
    x, level = torch.randn(1, 1, 8, 8), torch.zeros(1)

    def drawn(words):
        found = READING.condition(np.full((1, 2), -1, np.int8), {"text": np.array([""])})
        text = torch.tensor([words])
        return network(x, level, Condition(found.codes, found.sizes, 2, None, text))

    torch.testing.assert_close(drawn([4, 2, 1]), drawn([4, 2, 1, 0, 0, 0]), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(drawn([0]), drawn([0, 0, 0]), atol=1e-5, rtol=1e-4)
    for other in ([2, 4, 1], [4, 2, 3], [0, 0, 0]):
        assert (drawn([4, 2, 1]) - drawn(other)).abs().max() > 1e-3


@pytest.mark.parametrize("checkpointing", [False, True])
def test_whatever_a_network_has_learns_from_a_text(checkpointing):
    """Cross-attention by the blocks too, not only what the text says as a whole."""
    torch.manual_seed(0)
    shape = {"channels": 1, "classes": (2, 2), "size": 8, "widths": (16, 16), "blocks": 1, "attention": (), "patch": 1, "dropout": 0.0}
    network = UNet(**shape, vocabulary=4, checkpointing=checkpointing).train()
    for parameter in network.parameters():
        if parameter.abs().sum() == 0:
            torch.nn.init.normal_(parameter, std=0.1)
    asked = READING.condition(np.array([[1, 0]], np.int8), {"text": np.array(["small left effusion"])})
    network(torch.randn(1, 1, 8, 8), torch.zeros(1), asked).square().sum().backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == ["condition.augmentation.weight"]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_places_attend_to_words_and_not_only_to_what_sums_them_up(checkpointing):
    torch.manual_seed(0)
    layout = {"channels": 1, "classes": (2, 2), "size": 8, "widths": (16, 16), "blocks": 1, "attention": (), "patch": 1, "dropout": 0.0}
    network = UNet(**layout, vocabulary=4, checkpointing=checkpointing)
    for name, parameter in network.named_parameters():
        if not parameter.any() and not name.endswith("words.weight"):
            parameter.data.normal_(std=0.1)
    network.text.summary = lambda words, there: torch.zeros(len(words), words.shape[-1])
    nothing = READING.condition(np.full((1, 2), -1, np.int8), {})
    made = [network(torch.ones(1, 1, 8, 8), torch.zeros(1), replace(nothing, text=torch.tensor([words]))) for words in ([4, 2], [3, 2])]
    assert (made[0] - made[1]).abs().max() > 1e-3
    made[0].sum().backward()
    readers = [(name, one.grad) for name, one in network.named_parameters() if ".reading." in name]
    assert len(readers) == 3 * 8, "each block of the coarsest grid reads"
    assert all(grad is not None and grad.any() for _, grad in readers)


def test_each_field_is_a_word_that_places_attend_to_where_a_text_is_read():
    """With all that the sum of the fields tells taken away, and all that sums the words up."""
    torch.manual_seed(0)
    told = replace(CHEST, vocabulary=READING.vocabulary, longest=4)
    layout = {"channels": 1, "classes": told.sizes, "size": 8, "widths": (16, 16), "blocks": 1, "attention": (), "patch": 1, "dropout": 0.0}
    network = UNet(**layout, vocabulary=4, fields_read=True)
    for name, parameter in network.named_parameters():
        if not parameter.any() and not name.endswith("words.weight"):
            parameter.data.normal_(std=0.1)
    network.condition.label.weight.data.zero_()
    network.text.summary = lambda words, there: torch.zeros(len(words), words.shape[-1])
    one, other, number = (told.condition(np.array([[1, -1]], np.int8), {"severity": np.array([value])}) for value in (0.5, 1.5, 0.25))
    made = [network(torch.ones(1, 1, 8, 8), torch.zeros(1), asked) for asked in (one, other, number, one.null())]
    assert all((made[0] - another).abs().max() > 1e-3 for another in made[1:])
    made[2].sum().backward()
    asked = network.text.fields.weight.grad.any(dim=1)
    # effusion present, nodule open, no side, severity half way from its first knot to its second: a word each, of two rows where between
    assert asked.nonzero().flatten().tolist() == [1, 3 + 2, 6 + 2, 9, 9 + 1]
