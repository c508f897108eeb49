"""Every setting is told from the models: in the terminal, in SETTINGS.md, and to whoever misspells one."""

from pathlib import Path
from typing import get_origin

import pytest

from pipeline.api import settings
from pipeline.config import Config, load_config
from pipeline.config.describe import changed, markdown, sections
from pipeline.config.section import Section
from pipeline.errors import InputError
from tests.unit.command import refused, run_main

ROOT = Path(__file__).parents[2]
# Numbers that count and measure nothing.
PURE = {"seed", "ingest.dimensions", "ingest.bits", "train.patch", "train.learning_rate", "generate.guidance_scale"}


def told(key):
    [found] = settings(key)
    return found


def keys(model, above=""):
    for name, field in model.model_fields.items():
        inner = [kind for kind in (field.annotation, *getattr(field.annotation, "__args__", ())) if isinstance(kind, type)]
        listed = get_origin(field.annotation) is tuple
        deeper = [kind for kind in inner if issubclass(kind, Section) and not listed]
        yield from keys(deeper[0], f"{above}{name}.") if deeper else [above + name]


def test_every_key_of_the_models_is_told_once():
    found = [one.key for one in settings()]
    assert sorted(found) == sorted(keys(Config))
    assert set(sections()) == {name for name in Config.model_fields if name in {key.partition(".")[0] for key in found if "." in key}}


def test_the_page_is_the_models():
    said = "SETTINGS.md is of other settings: write it again with synthcohort settings --markdown > SETTINGS.md"
    assert (ROOT / "SETTINGS.md").read_text(encoding="utf-8") == markdown(), said


@pytest.mark.parametrize("one", settings(), ids=lambda one: one.key)
def test_a_setting_says_what_it_is(one):
    assert one.meaning.endswith((".", ")"))
    number = one.allowed.split()[0] in ("number", "whole") or one.allowed.split()[0].replace(".", "").isdigit()
    if number and one.key not in PURE:
        assert not one.allowed.removesuffix(" or null").rsplit(" ", 1)[-1].replace(".", "").isdigit(), f"{one.key} names no unit"


@pytest.mark.parametrize(
    ("key", "default", "allowed"),
    [
        ("train.batch", "64", "1 to 65 536 images"),
        ("train.images", "null", "1 to 1 000 000 000 images or auto or null"),
        ("train.ema", "0.1", "number from 0.001 and under 0.28, of the training"),
        ("train.widths", "[64, 128]", "[...] of up to 8 values, each 1 to 8 192 channels or auto"),
        ("train.start_classes", "{}", "{name: value}, each text"),
        ("ingest.bits", "8", "8 or 16"),
        ("ingest.path", "null", "path or null"),
        ("ingest.spacing", "null", "1e-05 to 100 mm or null"),
        ("ingest.colour", "false", "true or false"),
        ("ingest.query.modality", None, "text like `^[A-Z0-9_][A-Z0-9_ ]{0,15}$`"),
        ("generate.levels", "[0.004, 160.0]", "[...] of 2 values, each number in standard deviations"),
        ("release.max_copy_rate", "null", "number above 0, as a share or null"),
        ("audit.holdout_random", "false", "true or false"),
    ],
)
def test_the_default_and_the_range_are_the_models(key, default, allowed):
    assert (told(key).default, told(key).allowed) == (default, allowed)


@pytest.mark.parametrize("key", ["train.batch", "train.dropout", "generate.steps", "ingest.size", "audit.planted", "shadows.trainings"])
def test_a_default_is_what_a_configuration_without_the_key_has(key):
    section, name = key.split(".")
    bare = {"name": "x", "ingest": {"source": "phantom"}, "train": {"images": 1}, "generate": {"per_class": 1}}
    assert str(getattr(getattr(Config.model_validate(bare), section), name)) == told(key).default


def test_a_section_or_a_key_can_be_asked_for():
    assert {one.section for one in settings("audit")} == {"audit"}
    assert [one.key for one in settings("ingest.query")] == [f"ingest.query.{name}" for name in ("url", "modality", "dates", "body_part")]
    with pytest.raises(InputError, match=r"did you mean train\?"):
        settings("trian")


def test_a_plan_lists_what_is_not_as_by_default(monkeypatch, capfd):
    found = changed(load_config("quickstart", ["train.patch=2", "train.ema=0.05", "ingest.classes=[a, b]"]))
    assert found["train.blocks"] == "1"
    assert found["train.ema"] == "0.05"
    assert found["ingest.classes"] == '["a", "b"]'
    assert not {"train.patch", "name", "ingest.source", "ingest.query.url"} & found.keys()
    listed = " ".join(run_main(monkeypatch, capfd, "plan", "quickstart").stdout.split())
    assert "train.blocks=1" in listed
    assert "large enough to pass" in listed


def test_the_command_prints_them(monkeypatch, capfd):
    process = run_main(monkeypatch, capfd, "settings", "audit")
    assert process.returncode == 0
    assert "audit.planted  default 100; 20 to 10 000 copies" in process.stdout
    assert "train.batch" not in process.stdout
    assert run_main(monkeypatch, capfd, "settings", "--markdown").stdout == markdown()
    refused(run_main(monkeypatch, capfd, "settings", "audti"), "audit")
    refused(run_main(monkeypatch, capfd, "settings", "audit", "--markdown"), "leave audit out")


@pytest.mark.parametrize(
    ("setting", "mend"),
    [
        ("train.bach=3", "train.batch"),
        ("generate.stepps=4", "generate.steps"),
        ("trian.batch=3", "did you mean train?"),
        ("train.per_class=3", "generate.per_class"),
        ("batch=3", "train.batch or generate.batch"),
        ("ingest.patients=3", "ingest.phantom_patients"),
        ("train.zzzzz=1", "synthcohort settings train"),
        ("zzzzz=1", "synthcohort settings lists"),
    ],
)
def test_an_unknown_key_gets_the_nearest_names(setting, mend):
    with pytest.raises(InputError) as error:
        load_config("quickstart", [setting])
    assert mend in str(error.value)


@pytest.mark.parametrize(
    ("setting", "mend"),
    [
        ("ingest.classes=control", "ingest.classes='[control, ...]'"),
        ("train.widths=64", "train.widths='[64, ...]'"),
        ("ingest.scaling=percentile", "ingest.scaling='{NAME: percentile}'"),
        ("train=5", "synthcohort settings train"),
    ],
)
def test_one_value_where_several_belong_says_what_to_type(setting, mend):
    with pytest.raises(InputError) as error:
        load_config("quickstart", [setting])
    assert mend in str(error.value)
