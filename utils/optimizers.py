"""Every optimiser of ``torch.optim``, with its own options, by its own name."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
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
