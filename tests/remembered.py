"""Networks with the same random weights are made once."""

import copy
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

MOST = 12  # networks, each up to 45 MB


def remembered(make: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """``make``, but for the same arguments and random numbers its result is copied.

    The random numbers that follow are the same, too.
    """
    made: dict[tuple[Any, ...], tuple[nn.Module, Tensor]] = {}

    @functools.wraps(make)
    def remember(*args: Any, **kwargs: Any) -> nn.Module:
        key = (repr((args, kwargs)), torch.get_rng_state().numpy().tobytes())
        if key not in made:
            made[key] = make(*args, **kwargs), torch.get_rng_state()
        model, state = made[key] = made.pop(key)  # the latest are at the end
        if len(made) > MOST:
            del made[next(iter(made))]
        torch.set_rng_state(state)
        return copy.deepcopy(model)

    return remember
