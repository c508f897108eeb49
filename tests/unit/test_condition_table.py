"""A warm start's table by names: what both models can be asked for starts as it was, whatever else either of them knows."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline import tensors, warm_start
from pipeline.condition_table import carried, take_fields, take_words, told_alike
from pipeline.conditions import Attribute, Conditions
from pipeline.denoiser import build_denoiser
from pipeline.diffusion.unet import UNet

ONE = Conditions(("normal", "effusion", "nodule"))
CHEST = Conditions(("effusion", "nodule"), True, (Attribute("side", ("left", "right")), Attribute("severity", knots=(0.0, 0.5, 2.0))))
LATER = Conditions(
    ("hernia", "nodule", "effusion"),
    True,
    (Attribute("severity", knots=(0.25, 1.0, 3.0)), Attribute("view", ("AP", "PA")), Attribute("side", ("right", "both"))),
)
HIDDEN = 64


def table(conditions, seed=0):
    rows = sum(size + 1 for size in conditions.sizes)
    return torch.randn(rows, HIDDEN, generator=torch.Generator().manual_seed(seed))


def asked(conditions, rows, findings=None, **attributes):
    """What a network of these rows is told of one image; ``findings`` by name, what is not named is open."""
    network = UNet(channels=1, classes=conditions.sizes, size=8, widths=(16,), blocks=1, attention=(), patch=1, dropout=0.0)
    network.condition.label.weight.data.copy_(rows)
    marks = np.array([[(findings or {}).get(name, -1) for name in conditions.classes]], np.int8)
    told = {name: np.array([value]) for name, value in attributes.items()}
    return network.condition._asked(conditions.condition(marks, told))[0].detach()


@pytest.mark.parametrize(("before", "now"), [(ONE, CHEST), (CHEST, ONE), (CHEST, LATER), (LATER, CHEST), (ONE, ONE), (CHEST, CHEST)])
def test_shared_findings_and_nothing_at_all_start_as_they_were(before, now):
    rows = table(before)
    made = carried(rows, before, now, {}).float()
    assert made.shape == table(now).shape
    for findings in ({}, *({name: 1} for name in before.classes if name in now.classes)):
        torch.testing.assert_close(asked(now, made, findings), asked(before, rows, findings))


def test_several_findings_and_attributes_together_start_as_they_were():
    rows = table(CHEST)
    made = carried(rows, CHEST, LATER, {}).float()
    for severity in (0.25, 1.0):  # the new knots within the old ones
        for told in ({"severity": severity}, {"severity": severity, "side": "right"}):
            both = {"effusion": 1, "nodule": 0}
            torch.testing.assert_close(asked(LATER, made, both, **told), asked(CHEST, rows, both, **told))
    # beyond them, as the earlier model took such a number
    torch.testing.assert_close(asked(LATER, made, severity=3.0), asked(CHEST, rows, severity=2.0))


def test_what_only_the_new_model_can_be_asked_for_starts_as_nothing():
    rows = table(CHEST)
    made = carried(rows, CHEST, LATER, {}).float()
    nothing = asked(CHEST, rows)
    for told in ({"findings": {"hernia": 1}}, {"findings": {"hernia": 0}}, {"view": "AP"}, {"side": "both"}):
        torch.testing.assert_close(asked(LATER, made, **told), nothing)


def test_a_finding_under_another_name_is_taken_where_somebody_says_so():
    rows = table(CHEST)
    made = carried(rows, CHEST, LATER, {"hernia": "nodule"}).float()
    torch.testing.assert_close(asked(LATER, made, {"hernia": 1}), asked(CHEST, rows, {"nodule": 1}))


def test_equal_models_start_bit_for_bit_with_one_class_and_unknown_ones_from_the_last_row():
    rows = table(ONE)
    assert torch.equal(carried(rows, ONE, ONE, {}).float(), rows)
    assert torch.equal(carried(rows, Conditions(()), Conditions(("a", "b")), {}).float(), rows[-1:].expand(3, -1))


def test_words_are_taken_by_themselves_and_new_ones_stay_as_they_began():
    before, now = torch.randn(4, 8), torch.zeros(5, 8)
    assert take_words(now, before, ("effusion", "left", "small"), ("left", "nodule", "effusion", "zone")) == 1
    assert torch.equal(now, torch.stack([torch.zeros(8), before[2], torch.zeros(8), before[1], torch.zeros(8)]))
    assert take_words(now, before, ("other", "words"), ("left",)) == 0, "a table of other words than its description names"


def test_fields_that_are_read_are_taken_by_name_value_by_value():
    now = replace(LATER, classes=("hernia", "lump", "effusion"), attributes=(CHEST.attributes[1], LATER.attributes[2], LATER.attributes[1]))
    before, after, began = table(CHEST), table(now, 1), table(now, 1)
    assert take_fields(after, before, CHEST, now, {"lump": "nodule"}) == 1
    assert torch.equal(after[:3], began[:3]), "a hernia is new"
    assert torch.equal(after[3:9], torch.cat([before[3:6], before[:3]]))
    assert torch.equal(after[9:13], before[9:13]), "the same knots"
    assert torch.equal(after[13:16], before[[7, 8, 8]]), "right, both sides (which are new), none"
    assert torch.equal(after[16:], began[16:]), "views are new"
    assert take_fields(after, table(ONE), ONE, now, {}) == 0


def test_of_a_field_that_is_read_other_knots_lie_between_the_earlier_ones_and_a_new_class_is_none():
    before, after = table(CHEST), table(LATER, 1)
    take_fields(after, before, CHEST, LATER, {})
    expected = [before[9:11].mean(dim=0), before[10] + (before[11] - before[10]) / 3, before[11], before[12]]
    torch.testing.assert_close(after[9:13], torch.stack(expected))
    now = Conditions(("hernia", *ONE.classes[::-1]))
    before, after = table(ONE), table(now, 1)
    assert take_fields(after, before, ONE, now, {}) == 1
    assert torch.equal(after, before[[3, 2, 1, 0, 3]])


def test_features_of_another_language_model_are_known_by_the_words_that_both_tell():
    before, words = torch.randn(4, 8), ("effusion", "left", "small")
    now = torch.cat([before[[0, 3, 1]], torch.randn(1, 8)])
    assert told_alike(now, before, words, ("small", "effusion", "new"))
    assert not told_alike(now, before, words, ("left", "effusion", "new"))
    assert not told_alike(now[:, :4], before, words, ("small", "effusion", "new"))


READS = {"vocabulary": ("effusion", "left"), "longest": 4}
OTHER = {"vocabulary": ("left", "nodule"), "longest": 4}


def described(conditions):
    network = {"widths": [16, 32], "blocks": 1, "patch": 2, "attention": [], "dropout": 0.0}
    model = {"shape": [1, 16, 16], "classes": list(conditions.classes), "conditions": conditions.to_model(), "sigma_data": 0.5}
    return model | {"backbone": "unet", "objective": "edm", "noise_schedule": "edm", "network": network, "checkpointing": False}


def drawn(denoiser, conditions, findings, text, **told):
    marks = np.array([[findings.get(name, -1) for name in conditions.classes]], np.int8)
    asked = {name: np.array([value]) for name, value in ({"text": text} | told).items()}
    x = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    return denoiser(x, torch.ones(1), conditions.condition(marks, asked)).detach()


def started(folder, before, now, **more):
    """An earlier model with weights that hide nothing, and one that starts from it; what was taken."""
    torch.manual_seed(1)
    earlier, later = (build_denoiser(described(conditions) | more).eval() for conditions in (before, now))
    for weight in earlier.parameters():  # layers that start at zero would hide what stands before them
        if not weight.any():
            torch.nn.init.normal_(weight, std=0.1)
    tensors.write(earlier.state_dict(), folder / "model.safetensors")
    (folder / "model.json").write_text(json.dumps(described(before) | more))
    return earlier, later, warm_start.start(later, folder, now, {}, ())


def test_a_training_starts_from_a_run_with_other_findings_attributes_and_words(tmp_path):
    """What the earlier model was asked for by name, the new one draws at its start as the earlier one did."""
    before, now = replace(CHEST, **READS), replace(LATER, **OTHER)
    earlier, later, taken = started(tmp_path, before, now)
    assert taken.new_classes == ("hernia",)

    for findings, text, told in (
        ({"effusion": 1}, "", {}),
        ({"nodule": 0}, "left", {"severity": 1.0}),
        ({}, "left left", {"side": "right"}),
    ):
        torch.testing.assert_close(
            drawn(later, now, findings, text, **told), drawn(earlier, before, findings, text, **told), atol=1e-4, rtol=0
        )
    assert (drawn(earlier, before, {"effusion": 1}, "left") - drawn(earlier, before, {"nodule": 1}, "")).abs().max() > 1e-2


def test_fields_that_are_read_start_as_they_were_wherever_they_stand(tmp_path):
    before = replace(CHEST, **READS)
    now = replace(before, classes=before.classes[::-1], attributes=before.attributes[::-1])
    earlier, later, taken = started(tmp_path, before, now, fields_read=True)
    assert (taken.tensors, taken.new_classes) == (taken.of, ())
    for findings, text, told in (({"effusion": 1}, "", {}), ({"nodule": 0}, "left", {"severity": 0.75}), ({}, "", {"side": "right"})):
        then = drawn(earlier, before, findings, text, **told)
        torch.testing.assert_close(drawn(later, now, findings, text, **told), then, atol=1e-4, rtol=0)
        assert (then - drawn(earlier, before, {}, "")).abs().max() > 1e-2
