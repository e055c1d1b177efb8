"""Reads files of weights without executing code that they may contain."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

from utils.errors import UserError
from utils.torchscript import is_torchscript, read_torchscript

# Entries of a training's file that hold the network.
_WRAPPERS = ("state_dict", "model_state_dict", "model")
# What data-parallel training, Lightning, torch.compile and many trainings put before each name.
_PREFIXES = ("module.", "model.", "backbone.", "_orig_mod.")


def existing_file(name: str) -> Path | None:
    """The file of this name; ``None`` if there is none, or if files cannot have such a name."""
    try:
        file = Path(name).expanduser()
        return file if file.is_file() else None
    except (OSError, RuntimeError):  # too long; the home of an unknown user
        return None


def read_state(file: Path, key: str = "state_dict") -> dict[str, Tensor]:
    """The state dict in a safetensors file, a PyTorch file or a TorchScript archive, on the CPU.

    Prefixes of wrappers (``module.``, ``model.``, ``backbone.``, ``_orig_mod.``) are removed from
    the names.

    Args:
        file: The file.
        key: Name of the entry with the state dict; without such an entry ``state_dict``,
            ``model_state_dict`` or ``model`` is taken, and without these the whole file.

    Raises:
        UserError: If the file cannot be read, or contains anything but tensors.
    """
    try:
        state = _content(file)
    except Exception as error:  # torch.load raises a dozen unrelated types for other files
        reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        if isinstance(error, UnpicklingError):  # its own text is ten lines about torch.load
            reason = "damaged, or not tensors alone: save the state dict alone, where it comes from"
        raise UserError(f"{file}: cannot be read as weights ({reason.splitlines()[0]})") from error
    entries = (key, *_WRAPPERS)
    for _ in entries:  # they lie inside of each other; a file may even hold itself
        state = _inner(state, entries) or state
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise UserError(f"{file}: expected a state dict with nothing but names and tensors")
    named = {_without_prefixes(str(name)): value for name, value in state.items()}
    # Of two networks in one file neither is the right one.
    return named if len(named) == len(state) else {str(n): value for n, value in state.items()}


def load_fitting(
    network: nn.Module, state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], mistake: str
) -> None:
    """Loads weights into a part of a network, all of which they must fill.

    Args:
        network: The network.
        state: The weights.
        wanted: That part of its state dict.
        mistake: Start of the message.

    Raises:
        ValueError: If a name or a shape differs.
    """
    wrong = sorted(wanted.keys() ^ state.keys()) or [
        name for name in wanted if wanted[name].shape != state[name].shape
    ]
    if wrong:
        raise ValueError(f"{mistake}: {wrong[0]!r} differs")
    network.load_state_dict({k: v.to(wanted[k].dtype) for k, v in state.items()}, strict=False)


def _content(file: Path) -> Any:
    if file.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(file)
    if is_torchscript(file):
        return read_torchscript(file)
    return torch.load(file, map_location="cpu", weights_only=True)


def _inner(state: Any, entries: Sequence[str]) -> dict[Any, Any] | None:
    """The first of these entries that is a dict; ``None`` if there is none."""
    held = [state.get(entry) for entry in entries] if isinstance(state, dict) else []
    return next((inner for inner in held if isinstance(inner, dict)), None)


def _without_prefixes(name: str) -> str:
    while prefix := next((p for p in _PREFIXES if name.startswith(p)), ""):
        name = name.removeprefix(prefix)
    return name
