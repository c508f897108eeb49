"""The denoiser's reader: a small encoder of texts in a closed vocabulary, learned together with the network that attends to its words."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.clinical_text import LONGEST

HEADS = 4


class TextEncoder(nn.Module):
    """Words to what the network reads: an embedding with places, and two small transformer layers, learned with the denoiser.

    A learned mark comes before the first word, so that there is something to read where there is no text: that is the null condition.
    """

    def __init__(self, vocabulary: int, hidden: int) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary + 1, hidden, padding_idx=0)
        self.places = nn.Parameter(torch.randn(LONGEST + 1, hidden) * 0.1)
        self.mark = nn.Parameter(torch.randn(hidden))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(hidden, HEADS, 2 * hidden, 0.0, "gelu", batch_first=True, norm_first=True) for _ in range(2)
        )
        self.pool = nn.Linear(hidden, hidden)

    def forward(self, text: Tensor) -> tuple[Tensor, Tensor]:
        """``int64 [n, L]``, 0 for no word, to ``[n, 1 + L, hidden]`` and which of these is something, ``bool [n, 1 + L]``."""
        there = torch.cat([torch.ones_like(text[:, :1], dtype=torch.bool), text > 0], dim=1)
        words = torch.cat([self.mark.expand(len(text), 1, -1), self.words(text)], dim=1) + self.places[: text.shape[1] + 1]
        for layer in self.layers:
            words = layer(words, src_key_padding_mask=~there)
        return words, there

    def summary(self, words: Tensor, there: Tensor) -> Tensor:
        """All of it in one vector ``[n, hidden]``."""
        told: Tensor = self.pool((words * there[..., None]).sum(dim=1) / there.sum(dim=1, keepdim=True))
        return told
