"""Reads files of weights without executing code that they may contain."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from utils.errors import UserError


def existing_file(name: str) -> Path | None:
    """The file of this name; ``None`` if there is none, or if files cannot have such a name."""
    try:
        file = Path(name).expanduser()
        return file if file.is_file() else None
    except (OSError, RuntimeError):  # too long; the home of an unknown user
        return None


def read_state(file: Path, key: str = "state_dict") -> dict[str, Tensor]:
    """The state dict in a safetensors file or a PyTorch file, on the CPU.

    The prefix ``module.`` of data-parallel training is removed from the names.

    Args:
        file: The file.
        key: Name of the entry with the state dict; without such an entry the whole file is taken.

    Raises:
        UserError: If the file cannot be read, or contains anything but tensors.
    """
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(file)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises a dozen unrelated types for other files
        first = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UserError(f"{file}: cannot be read as weights ({first})") from error
    if isinstance(state, dict) and key in state:
        state = state[key]
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise UserError(f"{file}: expected a state dict with nothing but names and tensors")
    return {str(name).removeprefix("module."): value for name, value in state.items()}
