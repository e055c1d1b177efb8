"""Every optimiser of ``torch.optim``, with its own options, by its own name."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn

Builder = Callable[..., torch.optim.Optimizer]

# The base class; needs a closure; sparse gradients only; matrices only.
_SKIPPED = ("Optimizer", "LBFGS", "SparseAdam", "Muon")
# What to train is not YAML's business; the rest chooses between implementations of the same sum.
_HIDDEN = ("params", "foreach", "fused", "capturable", "differentiable", "maximize")
# One kernel for all parameters: on CPUs and GPUs alike, faster and the same sum.
_FUSED = ("Adam", "AdamW", "SGD")


def _option(parameter: inspect.Parameter) -> inspect.Parameter:
    """The same option with a type told from its default: torch's own are wider than YAML is."""
    default = parameter.default
    if isinstance(default, bool):
        kind: Any = bool
    elif isinstance(default, tuple):
        kind = tuple[(float | None if None in default else float,) * len(default)]  # type: ignore[misc]
    else:
        kind, default = float, float(default)
    keyword = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(parameter.name, keyword, default=default, annotation=kind)


def _entry(optimizer: type[torch.optim.Optimizer]) -> Builder:
    """``optimizer`` as a table entry: ``(encoder parameters, other parameters, *, options)``."""

    def build(
        encoders: Iterable[nn.Parameter], others: Iterable[nn.Parameter], **options: Any
    ) -> torch.optim.Optimizer:
        lr, head_lr = options["lr"], options.pop("head_lr")
        rates = (encoders, lr), (others, lr if head_lr is None else head_lr)
        groups = [
            {"params": [p for p in group if p.requires_grad], "lr": rate, "initial_lr": rate}
            for group, rate in rates
        ]
        if optimizer.__name__ in _FUSED:
            options["fused"] = True
        return optimizer([group for group in groups if group["params"]], **options)

    known = inspect.signature(optimizer).parameters.values()
    head_lr = inspect.Parameter(
        "head_lr", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=float | None
    )
    build.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [*(_option(p) for p in known if p.name not in _HIDDEN), head_lr]
    )
    build.__doc__ = f"""``torch.optim.{optimizer.__name__}``, with its own options.

    Args:
        head_lr: Learning rate of everything that is not an encoder (fusion, classifier,
            projection); ``null``: the same as ``lr``.
    """
    return build


OPTIMIZERS: Mapping[str, Builder] = {
    name: _entry(cls)
    for name, cls in sorted(vars(torch.optim).items())
    if isinstance(cls, type) and issubclass(cls, torch.optim.Optimizer) and name not in _SKIPPED
}
