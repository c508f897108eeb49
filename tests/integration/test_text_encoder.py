"""Reports in the words of a real, tiny sentence-transformers folder: from the table to images of a prompt, without the folder."""

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from pipeline import api, artifacts, word_features
from pipeline.clinical_text import LISTED
from pipeline.errors import InputError

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("sentence_transformers") is None, reason="the extra text is not installed"),
]

TEXT = """
name: told
anyway: true
ingest: {{source: phantom, several_findings: true, report: report, text_encoder: {encoder}, phantom_patients: 150, size: 16}}
train: {{images: 320, batch: 32, widths: [16, 32], blocks: 1, attention: [], augment: 0.0, dropout: 0.0, text: true}}
generate: {{plan: [{{text: left pleural effusion, count: 2}}], steps: 2}}
release: {{title: T, licence: CC0-1.0}}
"""


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of one layer over the listed terms, as sentence-transformers saves it."""
    from sentence_transformers import SentenceTransformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("encoder")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LISTED]
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=len(words), **sizes)).save_pretrained(folder / "bare")
    BertTokenizerFast(vocab={word: place for place, word in enumerate(words)}).save_pretrained(folder / "bare")
    SentenceTransformer(str(folder / "bare"), device="cpu").save(str(folder / "saved"))
    return folder


@pytest.fixture(scope="module")
def run(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("told")
    (folder / "told.yaml").write_text(TEXT.format(encoder=encoder / "saved"))
    return api.run(folder / "told.yaml", out=folder / "run", until="generate").folder


def test_both_kinds_of_folders_tell_words_alike(encoder: Path) -> None:
    """Of a bare transformer, tokens are averaged, which is what is saved for sentence-transformers too."""
    saved, bare = (word_features.compute(encoder / name, ["effusion", "left", "nodule"]) for name in ("saved", "bare"))
    np.testing.assert_allclose(saved, bare, atol=1e-5)
    assert np.linalg.norm(saved[0] - saved[1]) > 0.1


def test_half_precision_is_read_and_what_no_file_says_is_no_feature(encoder: Path, tmp_path: Path, caplog: Any) -> None:
    """Layers that config.json asks for and the weights lack are drawn at random by whoever loads them, with a warning at best."""
    from transformers import BertModel, ViTConfig, ViTModel

    whole = word_features.compute(encoder / "bare", ["effusion", "left"])
    half = tmp_path / "half"
    shutil.copytree(encoder / "bare", half)
    BertModel.from_pretrained(half).to(torch.float16).save_pretrained(half)
    np.testing.assert_allclose(word_features.compute(half, ["effusion", "left"]), whole, atol=0.05)
    deeper = tmp_path / "deeper"
    shutil.copytree(encoder / "bare", deeper)
    config = json.loads((deeper / "config.json").read_text())
    (deeper / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(InputError, match=r"deeper: its files lack weights that its config.json asks for"):
        word_features.compute(deeper, ["effusion"])
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    ViTModel(ViTConfig(**sizes, image_size=16, patch_size=8)).save_pretrained(tmp_path / "image")
    caplog.clear()
    with pytest.raises(InputError, match="image: it cannot be read as a model of texts"):
        word_features.compute(tmp_path / "image", ["effusion"])
    assert not caplog.records, "one line, and no library's page of warnings"


def test_the_model_holds_the_features_as_they_were_made_and_no_report(run: Path) -> None:
    weights, words = load_file(run / "train" / "model.safetensors"), artifacts.read_object(run / "train" / "model.json")["conditions"]
    told = [*words["vocabulary"], *words["further"]]
    assert set(told) >= set(LISTED)
    assert torch.equal(weights["network.text.words.features"], word_features.of(run / "ingest", told))
    assert set(pd.read_parquet(run / "ingest" / "words.parquet")["word"]) >= set(told)


def test_the_folder_is_known_by_what_it_holds_and_is_not_needed_again(run: Path, encoder: Path, tmp_path: Path) -> None:
    shutil.copytree(encoder / "saved", tmp_path / "moved")
    (tmp_path / "told.yaml").write_text(TEXT.format(encoder=tmp_path / "moved"))
    assert all(step.reason is None for step in api.plan(tmp_path / "told.yaml", out=run)[:3])
    (tmp_path / "moved" / "config.json").write_text((encoder / "saved" / "config.json").read_text() + "\n")
    assert api.plan(tmp_path / "told.yaml", out=run)[0].reason is not None
    shutil.rmtree(tmp_path / "moved")
    with pytest.raises(InputError, match=r"ingest\.text_encoder moved: no such folder"):
        api.plan(tmp_path / "told.yaml", out=run)
    plan = [{"text": "left hernia", "count": 2, "extrapolate": True}, {"text": "Left effusion.", "count": 1}]
    api.generate(run, plan=plan, out=tmp_path / "more")
    rows = pd.read_csv(tmp_path / "more" / "rows.csv")
    assert rows["attribute_text"].tolist() == ["left hernia"] * 2 + ["left effusion"]
    assert rows["unseen"].tolist() == [1, 1, 0]
    for text, why in (("small zebra", "no word 'zebra'"), ("left hernia", "the word 'hernia' was not seen in enough training patients")):
        with pytest.raises(InputError, match=why):
            api.generate(run, plan=[{"text": text, "count": 1}], out=tmp_path / "none")
