"""Words told by a language model on the disk: read once, frozen, by name; and what is no such model is one line."""

import importlib.util
import json
import re
import sys
import types

import numpy as np
import pytest
import torch

from evaluation.data import Labelled
from pipeline import word_features
from pipeline.artifacts import damage
from pipeline.clinical_text import LISTED
from pipeline.conditions import Conditions
from pipeline.config import Config
from pipeline.diffusion.text import TextEncoder
from pipeline.errors import InputError

WORDS = ("effusion", "left", "sternotomy")


class Stub:
    """Stands for sentence-transformers: a word's features are its letters'."""

    def __init__(self, path, **settings):
        assert settings["trust_remote_code"] is False
        assert settings["local_files_only"] is True
        assert settings["model_kwargs"] == {"use_safetensors": True}

    def encode(self, words, **settings):
        return np.array([[word.count(letter) for letter in "aeft"] for word in words], np.float32)


@pytest.fixture
def installed(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "sentence_transformers", types.SimpleNamespace(SentenceTransformer=Stub))
    monkeypatch.setitem(sys.modules, "transformers.utils.logging", types.SimpleNamespace(disable_progress_bar=lambda: None))


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "encoder"
    path.mkdir()
    (path / "config.json").write_text("{}")
    (path / "model.safetensors").write_bytes(b"")
    return path


@pytest.mark.usefixtures("installed")
def test_features_are_stored_by_word_and_read_in_any_order(folder, tmp_path):
    count = word_features.save(tmp_path, folder, ["effusion sternotomy", ""])
    assert count == len({*LISTED, "sternotomy"})
    assert word_features.width(tmp_path) == 4
    told = word_features.of(tmp_path, WORDS)
    assert told.shape == (4, 4)
    assert not told[0].any(), "of no word"
    every = word_features.of(tmp_path, LISTED)[1:]
    torch.testing.assert_close(every.mean(dim=0), torch.zeros(4), atol=1e-5, rtol=0)
    assert float(every.std(unbiased=False)) == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(word_features.of(tmp_path, WORDS[::-1])[1:], told[1:].flip(0))
    with pytest.raises(InputError, match=re.escape(damage(tmp_path.name, word_features.FILE))):
        word_features.of(tmp_path, ("zebra",))


@pytest.mark.usefixtures("installed")
def test_nothing_of_a_report_enters_but_its_words_of_the_vocabulary(folder, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        Stub, "encode", lambda self, words, **settings: seen.extend(words) or np.random.default_rng(0).normal(size=(len(words), 3))
    )
    word_features.save(tmp_path, folder, ["effusion left"])
    assert set(seen) == set(LISTED), "each by itself, and no sentence"


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda path: [one.unlink() for one in path.iterdir()] and path.rmdir(), "encoder: no such folder: give the folder"),
        (lambda path: (path / "config.json").unlink(), "holds neither modules.json nor config.json"),
        (lambda path: (path / "model.safetensors").rename(path / "pytorch_model.bin"), "no weights as safetensors, or some as pickles"),
        (lambda path: (path / "1_Dense").mkdir() or (path / "1_Dense" / "pytorch_model.bin").write_bytes(b""), "some as pickles alone"),
        (lambda path: (path / "modules.json").write_text(json.dumps([{"type": "custom.Encoder"}])), "code of its own .*which is not run"),
        (lambda path: (path / "config.json").write_text('{"auto_map": {"AutoModel": "mine.Model"}}'), "code of its own"),
    ],
)
def test_what_is_no_model_that_may_be_read_is_one_line(folder, spoil, why):
    word_features.check(folder)
    spoil(folder)
    with pytest.raises(InputError, match=f"ingest.text_encoder {why}" if why.startswith("encoder") else why) as caught:
        word_features.check(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("made", "why"),
    [
        (lambda n: 1 / 0, "cannot be read as a model of texts"),
        (lambda n: np.full((n, 3), np.nan), "finite numbers"),
        (lambda n: np.ones((n, 2, 2)), "finite numbers"),
        (lambda n: np.ones((n, 3)), "tells no word from another"),
    ],
)
def test_a_wrong_model_is_one_line(folder, monkeypatch, made, why):
    monkeypatch.setattr(Stub, "encode", lambda self, words, **settings: made(len(words)))
    with pytest.raises(InputError, match=f"text_encoder encoder: it .*{why}") as caught:
        word_features.compute(folder, WORDS)
    assert "\n" not in str(caught.value)


def test_without_the_extra_it_is_said_what_to_install(folder, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs the extra: pip install 'synthcohort\[text\]'"):
        word_features.check(folder)


def test_an_encoder_reads_reports_and_nothing_else():
    with pytest.raises(ValueError, match=r"name their column in ingest\.report"):
        Config.model_validate(
            {"name": "t", "ingest": {"source": "phantom", "text_encoder": "e"}, "train": {"images": 1}, "generate": {"per_class": 1}}
        )


def learned(features):
    texts = np.array(["small effusion"] * 30 + ["small hernia"] * 10)
    images = Labelled(
        np.zeros((40, 1, 8, 8), np.uint8), np.tile(np.array([[1, 0]], np.int8), (40, 1)), np.arange(40), asked={"text": texts}
    )
    return Conditions.learned(images, ("a", "b"), np.arange(40), several=True, names=(), text=True, features=features), images


def test_words_that_no_report_had_can_be_asked_for_and_those_of_few_patients_are_never_trained_on():
    conditions, images = learned(4)
    assert conditions.vocabulary == ("effusion", "small")
    assert set(conditions.words) == {*LISTED, "effusion", "small"}
    assert Conditions.of_model({"classes": ["a", "b"], "conditions": json.loads(json.dumps(conditions.to_model()))}) == conditions
    in_training = conditions.met.of(images).text
    assert in_training[0].tolist() == [2, 1]
    assert in_training[-1].tolist() == [2, 0], "hernia stands in ten patients' reports"
    asked = conditions.condition(np.full((1, 2), -1, np.int8), {"text": np.array(["small hernia"])}).text[0].tolist()
    assert asked == [2, 1 + conditions.words.index("hernia")]
    assert learned(0)[0].words == ("effusion", "small")


def test_the_reader_maps_features_and_never_changes_them():
    torch.manual_seed(0)
    encoder = TextEncoder(3, 16, 4)
    features = torch.cat([torch.zeros(1, 4), torch.randn(3, 4)])
    encoder.words.load_state_dict({"features": features}, strict=False)
    torch.testing.assert_close(encoder.words(torch.tensor([[2, 0]])), torch.stack([encoder.words.map(features[2]), torch.zeros(16)])[None])
    assert "words.features" not in dict(encoder.named_parameters())
    assert "words.features" in encoder.state_dict(), "whoever samples needs no language model"
