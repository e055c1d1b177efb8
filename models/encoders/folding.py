"""BatchNorm that was folded into the convolutions, and how to take it out again."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

FOLDED = "BatchNorm is folded into the convolutions: it is unfolded"
_NEARLY_ONE = 0.002  # some programs write 1 - eps for the variance, and eps is up to 0.001


def is_folded(network: nn.Module) -> bool:
    """Whether all BatchNorms do nothing but add a bias, unlike those of a new network."""
    norms = [m.state_dict() for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    are_one = all(
        not n["running_mean"].any() and (n["running_var"] - 1).abs().max() <= _NEARLY_ONE
        for n in norms
    )
    return are_one and any(n["bias"].any() for n in norms)


@torch.no_grad()
def unfold(network: nn.Module, inputs: Iterable[Tensor]) -> None:
    r"""Gives folded BatchNorms real statistics without changing the output of the network.

    The stored statistics :math:`\mu, \sigma^2` of a norm are replaced by those of its inputs,
    :math:`m, s^2`, and its scale and shift are changed to compensate: with
    :math:`g = \gamma / \sigma`, :math:`\gamma' = g s` and :math:`\beta' = \beta + g (m - \mu)`. In
    eval mode the output stays the same; in training mode the statistics of a batch are now close
    to the stored ones.

    Source:
        The inverse of folding, Jacob et al. 2018, https://arxiv.org/abs/1712.05877, sec. 3.2.

    Args:
        network: Changed in place.
        inputs: Some hundred training images, normalized, in batches.
    """
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    sums: dict[nn.Module, Tensor] = {
        norm: torch.zeros(3, norm.num_features, dtype=torch.float64) for norm in norms
    }

    def look(norm: nn.Module, given: tuple[Tensor, ...]) -> None:
        x = given[0].cpu().double()  # mps has no float64
        count = torch.full((x.shape[1],), float(x.numel() // x.shape[1]), dtype=torch.float64)
        sums[norm] += torch.stack([count, x.sum((0, 2, 3)), x.square().sum((0, 2, 3))])

    hooks = [norm.register_forward_pre_hook(look) for norm in norms]
    was_training = network.training
    network.eval()
    for batch in inputs:
        network(batch)
    network.train(was_training)
    for hook in hooks:
        hook.remove()
    for norm in norms:
        count, total, squares = sums[norm]
        mean = total / count
        _restate(norm, mean, squares / count - mean.square())


def _restate(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor) -> None:
    """Replaces the stored statistics and keeps the function; see :func:`unfold`."""
    old_mean, old_variance = norm.running_mean, norm.running_var
    assert old_mean is not None and old_variance is not None  # noqa: PT018  it tracks statistics
    gain = norm.weight.cpu().double() / (old_variance.cpu().double() + norm.eps).sqrt()
    norm.bias.add_((gain * (mean - old_mean.cpu().double())).to(norm.bias))
    norm.weight.copy_(gain * (variance + norm.eps).sqrt())
    old_mean.copy_(mean)
    old_variance.copy_(variance)
