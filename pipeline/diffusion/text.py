"""The denoiser's reader: a small encoder of texts in a closed vocabulary, learned together with the network that attends to its words.

What a word is may be learned with it, or be told by a language model's features that stay as they are (:mod:`pipeline.word_features`); the
order of words, and so what is denied of what, is read by the encoder's own layers in either case.
"""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from pipeline.clinical_text import LONGEST

HEADS = 4


class TextEncoder(nn.Module):
    """Words to what the network reads: an embedding with places, and two small transformer layers, learned with the denoiser.

    A learned mark comes before the first word, so that there is something to read where there is no text: that is the null condition.

    Args:
        vocabulary: how many words there are.
        hidden: width of what is read.
        features: numbers in which each word is told; 0 where its embedding is learned.
        rows: values of all fields that are read as words, each field's nothing too; 0 where none is.
    """

    def __init__(self, vocabulary: int, hidden: int, features: int = 0, rows: int = 0) -> None:
        super().__init__()
        self.fields = nn.Embedding(rows, hidden) if rows else None
        self.words = ToldWords(vocabulary, features, hidden) if features else nn.Embedding(vocabulary + 1, hidden, padding_idx=0)
        self.places = nn.Parameter(torch.randn(LONGEST + 1, hidden) * 0.1)
        self.mark = nn.Parameter(torch.randn(hidden))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(hidden, HEADS, 2 * hidden, 0.0, "gelu", batch_first=True, norm_first=True) for _ in range(2)
        )
        self.pool = nn.Linear(hidden, hidden)

    def forward(self, text: Tensor, fields: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``int64 [n, L]``, 0 for no word, to ``[n, 1 + L, hidden]`` and which of these is something, ``bool [n, 1 + L]``; ``fields [n, F,
        hidden]`` are F words more, which have no place in the order."""
        there = torch.cat([text.new_ones(len(text), 1, dtype=torch.bool), text > 0], dim=1)
        words = torch.cat([self.mark.expand(len(text), 1, -1), self.words(text)], dim=1) + self.places[: text.shape[1] + 1]
        if fields is not None:
            words = torch.cat([words, fields], dim=1)
            there = torch.cat([there, there.new_ones(fields.shape[:2])], dim=1)
        # A CPU's kernel for bfloat16, which takes several times as long for so few words, cannot be told to take float32 in these layers.
        plainly = sdpa_kernel(SDPBackend.MATH) if words.device.type == "cpu" else contextlib.nullcontext()
        with plainly:
            for layer in self.layers:
                words = layer(words, src_key_padding_mask=~there)
        return words, there

    def summary(self, words: Tensor, there: Tensor) -> Tensor:
        """All of it in one vector ``[n, hidden]``."""
        told: Tensor = self.pool((words * there[..., None]).sum(dim=1) / there.sum(dim=1, keepdim=True))
        return told


class ToldWords(nn.Module):
    """Words by features that stay as they are, ``float32 [1 + vocabulary, features]`` with zeros first, and a linear map that learns."""

    features: Tensor

    def __init__(self, vocabulary: int, features: int, hidden: int) -> None:
        super().__init__()
        self.register_buffer("features", torch.zeros(vocabulary + 1, features))
        self.map = nn.Linear(features, hidden, bias=False)

    def forward(self, text: Tensor) -> Tensor:
        """``int64 [n, L]`` to ``[n, L, hidden]``."""
        told: Tensor = self.map(self.features[text])
        return told
