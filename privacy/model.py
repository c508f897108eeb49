"""The model under attack, as far as an attack looks at it: a denoiser D(x, sigma, c), and the conditions that it is asked with."""

from __future__ import annotations

from typing import Protocol, Self, TypeVar

from torch import Tensor


class Condition(Protocol):
    """The condition of n images; what it consists of is the model's own business."""

    def null(self) -> Self:
        """As many times nothing asked for."""
        ...

    def take(self, index: Tensor | slice, /) -> Self:
        """The rows that an index or a slice selects."""
        ...

    def to(self, device: str, /) -> Self:
        """On another device."""
        ...


C = TypeVar("C", bound=Condition)
Asked = TypeVar("Asked", bound=Condition, contravariant=True)


class Denoiser(Protocol[Asked]):
    """D(x, sigma, c): noisy images ``[n, C, ...]``, noise levels ``[n]`` and n conditions to denoised images."""

    def __call__(self, x: Tensor, sigma: Tensor, condition: Asked, /) -> Tensor:
        """Denoise."""
        ...
