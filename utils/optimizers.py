"""The optimizers: plain functions of the parameters and of what YAML may set."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import nn

from utils.ranges import BelowOne, NotNegative, check_ranges

Betas = tuple[BelowOne, BelowOne]


class Parameters(NamedTuple):
    """Parameters of the pretrained encoders and all others, which may learn at another rate.

    Attributes:
        encoders: By the factor on their learning rate.
        others: All others.
    """

    encoders: Mapping[float, Iterable[nn.Parameter]]
    others: Iterable[nn.Parameter]

    def groups(self, lr: float, head_lr: float | None) -> list[dict[str, Any]]:
        """Those that are trained, in groups; a schedule multiplies the ``initial_lr``."""
        rates = [(group, factor * lr) for factor, group in self.encoders.items()]
        rates.append((self.others, lr if head_lr is None else head_lr))
        groups = [
            {"params": [p for p in group if p.requires_grad], "lr": rate, "initial_lr": rate}
            for group, rate in rates
        ]
        return [group for group in groups if group["params"]]


# fused: one kernel for all parameters, which is faster on CPUs and GPUs and gives the same result.


@check_ranges
def adam(
    parameters: Parameters,
    *,
    lr: NotNegative = 1e-3,
    head_lr: NotNegative | None = None,
    betas: Betas = (0.9, 0.999),
    eps: NotNegative = 1e-8,
    weight_decay: NotNegative = 0.0,
) -> torch.optim.Optimizer:
    """``torch.optim.Adam``: Kingma and Ba 2015, https://arxiv.org/abs/1412.6980.

    Args:
        parameters: The parameters.
        lr: Learning rate.
        head_lr: Learning rate of everything that is not an encoder (fusion, classifier,
            projection); ``null``: the same as ``lr``.
        betas: Decay rates of the running means of the gradient and of its square.
        eps: Added to the denominator.
        weight_decay: Factor of the L2 penalty, which is added to the gradient.
    """
    groups = parameters.groups(lr, head_lr)
    return torch.optim.Adam(groups, betas=betas, eps=eps, weight_decay=weight_decay, fused=True)


@check_ranges
def adamw(
    parameters: Parameters,
    *,
    lr: NotNegative = 1e-3,
    head_lr: NotNegative | None = None,
    betas: Betas = (0.9, 0.999),
    eps: NotNegative = 1e-8,
    weight_decay: NotNegative = 1e-2,
) -> torch.optim.Optimizer:
    """``torch.optim.AdamW``: Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101.

    Args:
        parameters: The parameters.
        lr: Learning rate.
        head_lr: As in ``Adam``.
        betas: As in ``Adam``.
        eps: As in ``Adam``.
        weight_decay: Each step also multiplies the parameters by ``1 - lr * weight_decay``.
    """
    groups = parameters.groups(lr, head_lr)
    return torch.optim.AdamW(groups, betas=betas, eps=eps, weight_decay=weight_decay, fused=True)


@check_ranges
def adamax(
    parameters: Parameters,
    *,
    lr: NotNegative = 2e-3,
    head_lr: NotNegative | None = None,
    betas: Betas = (0.9, 0.999),
    eps: NotNegative = 1e-8,
    weight_decay: NotNegative = 0.0,
) -> torch.optim.Optimizer:
    """``torch.optim.Adamax``: Kingma and Ba 2015, https://arxiv.org/abs/1412.6980, sec. 7.1.

    Args:
        parameters: The parameters.
        lr: Learning rate.
        head_lr: As in ``Adam``.
        betas: Decay rates of the running mean of the gradient and of its largest size.
        eps: As in ``Adam``.
        weight_decay: As in ``Adam``.
    """
    groups = parameters.groups(lr, head_lr)
    return torch.optim.Adamax(groups, betas=betas, eps=eps, weight_decay=weight_decay)


@check_ranges
def sgd(
    parameters: Parameters,
    *,
    lr: NotNegative = 1e-3,
    head_lr: NotNegative | None = None,
    momentum: NotNegative = 0.0,
    nesterov: bool = False,
    weight_decay: NotNegative = 0.0,
) -> torch.optim.Optimizer:
    """``torch.optim.SGD``: stochastic gradient descent.

    Args:
        parameters: The parameters.
        lr: Learning rate.
        head_lr: As in ``Adam``.
        momentum: Share of the last step that the next one repeats.
        nesterov: Whether the momentum is Nesterov's.
        weight_decay: As in ``Adam``.
    """
    return torch.optim.SGD(
        parameters.groups(lr, head_lr),
        momentum=momentum,
        nesterov=nesterov,
        weight_decay=weight_decay,
        fused=True,
    )


OPTIMIZERS: Mapping[str, Callable[..., torch.optim.Optimizer]] = {
    "Adam": adam,
    "AdamW": adamw,
    "Adamax": adamax,
    "SGD": sgd,
}
