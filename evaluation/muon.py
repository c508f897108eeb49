"""Muon: momentum orthogonalised by Newton–Schulz steps, for the weights that are matrices (Jordan et al. 2024).

Every direction of a weight matrix moves equally fast, which in short trainings lowers the loss faster than AdamW does. The step is scaled
by 0.2 · sqrt(max(rows, columns)), so that its root mean square is that of AdamW and both share one learning rate (Liu et al.
2025, arXiv:2502.16982).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from evaluation.precision import bf16_pays

MOMENTUM = 0.95
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """Optimiser of weights with two or more dimensions; convolution kernels count as ``[out, k · k · in]``.

    Like torch's fused optimisers it heeds ``found_inf``, a scalar on the device: where that is 1, a step changes nothing.
    """

    found_inf: Tensor | None = None

    def __init__(self, parameters: Iterable[Tensor] | Iterable[dict[str, Any]], lr: Tensor, weight_decay: float = 0.01) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step with Nesterov momentum; matrices of one shape are gathered and orthogonalised together, in few kernels."""
        for group in self.param_groups:
            on = torch.ones_like(group["lr"]) if self.found_inf is None else 1 - self.found_inf
            by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for weight in group["params"]:
                if weight.grad is not None:
                    by_shape[weight.flatten(1).shape].append(weight)
            for shape, weights in by_shape.items():
                update = self._update(weights, on).mul_(on * group["lr"] * (0.2 * max(shape) ** 0.5))
                torch._foreach_mul_(weights, 1 - on * group["lr"] * group["weight_decay"])
                torch._foreach_sub_([_matrix(weight, weight) for weight in weights], list(update.unbind()))

    def _update(self, weights: list[Tensor], on: Tensor) -> Tensor:
        """Orthogonalised directions ``[n, rows, columns]`` of weights of one shape; their momentum moves on where ``on`` is 1."""
        for weight in weights:
            if not self.state[weight]:
                self.state[weight]["momentum"] = torch.zeros_like(weight)
        momenta = [_matrix(self.state[weight]["momentum"], weight) for weight in weights]
        gradients = torch.stack([_matrix(weight.grad, weight) for weight in weights if weight.grad is not None])
        gradients = torch.where(on > 0, gradients, 0.0)
        moved = torch.stack(momenta).lerp_(gradients, (1 - MOMENTUM) * on)
        torch._foreach_copy_(momenta, list(moved.unbind()))
        return orthogonalise(torch.lerp(gradients, moved, MOMENTUM))


def _matrix(values: Tensor, weight: Tensor) -> Tensor:
    """``values`` in the shape of ``weight`` as ``[rows, columns]``, the columns in the order in which ``weight`` lies in memory.

    So the weight and its momentum are views, whatever their memory format; the order of columns changes no singular value.
    """
    last = weight.movedim(1, -1)
    return (values.movedim(1, -1) if last.is_contiguous() else values).flatten(1)


def orthogonalise(matrices: Tensor) -> Tensor:
    """The nearest semi-orthogonal matrices, singular values within about 0.7–1.2: ``[n, rows, columns]`` to the same.

    Five steps of the quintic Newton–Schulz iteration X ← aX + (bA + cA²)X, A = XXᵀ.
    """
    wide = matrices if matrices.shape[1] <= matrices.shape[2] else matrices.transpose(1, 2)
    made = _by_gram_matrix(wide) if wide.device.type == "cpu" else _by_steps(wide)
    return made if wide is matrices else made.transpose(1, 2)


def _by_steps(wide: Tensor) -> Tensor:
    """The iteration as it stands, in bfloat16 where that pays."""
    a, b, c = COEFFICIENTS
    x = wide / (wide.norm(dim=(1, 2), keepdim=True) + 1e-7)
    x = x.to(torch.bfloat16) if bf16_pays(x.device.type) else x
    for _ in range(ITERATIONS):
        gram = x @ x.transpose(1, 2)
        x = a * x + (b * gram + c * gram @ gram) @ x
    made: Tensor = x.to(wide.dtype)
    return made


def _by_gram_matrix(wide: Tensor) -> Tensor:
    """The same in float32 with the long side in two products instead of ten: half the time on a CPU.

    With Q = aI + bA + cA², a step is X ← QX and A ← QAQ, so that all five are the product of their Qs, which has ``rows²`` numbers.
    """
    a, b, c = COEFFICIENTS
    gram = wide @ wide.transpose(1, 2)
    norm = gram.diagonal(dim1=1, dim2=2).sum(dim=1)[:, None, None].sqrt() + 1e-7
    gram = gram / norm.square()
    total = None
    for step in range(ITERATIONS):
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=1, dim2=2).add_(a)
        total = factor if total is None else factor @ total
        if step + 1 < ITERATIONS:
            gram = factor @ gram @ factor
    assert total is not None
    made: Tensor = (total / norm) @ wide
    return made
