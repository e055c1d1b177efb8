"""Muon and AdamW as one optimizer."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn


class Together:
    """Several optimisers that step as one, each with parameters of its own."""

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        self.parts = parts

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all of them; what is set in one is set."""
        return [group for part in self.parts for group in part.param_groups]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forgets the gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none=set_to_none)

    def step(self) -> None:
        """One step of each."""
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """The state of each."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """What :meth:`state_dict` gave."""
        states: Sequence[dict[str, Any]] = state["parts"]
        for part, one in zip(self.parts, states, strict=True):
            part.load_state_dict(one)


def muon(
    matrices: Iterable[nn.Parameter],
    others: Iterable[nn.Parameter],
    *,
    lr: float,
    weight_decay: float,
) -> Together:
    """Muon for the matrices of transformer blocks, AdamW at half its rate for everything else.

    Source:
        https://kellerjordan.github.io/posts/muon/, scaled as https://arxiv.org/abs/2502.16982 does.

    Args:
        matrices: Shape ``(out, in)`` each.
        others: Everything else; vectors do not decay.
        lr: Learning rate of the matrices.
        weight_decay: Of matrices and other arrays.
    """
    plain = list(others)
    groups = [
        {"params": [p for p in plain if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in plain if p.ndim <= 1], "weight_decay": 0.0},
    ]
    both = Together(
        torch.optim.Muon(
            list(matrices), lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(groups, lr=lr / 2, betas=(0.9, 0.98), fused=True),
    )
    for group in both.param_groups:
        group["initial_lr"] = group["lr"]
    return both
