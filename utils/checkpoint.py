"""Files that are either whole or not there: weights to ship, and the state of a training."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from utils.errors import UserError


def write_bytes(content: bytes, path: Path) -> None:
    """Writes a file that, whatever happens, holds either its old or its new content.

    Raises:
        UserError: If it cannot be written; what was there before is still there.
    """
    _replace(path, lambda file: file.write(content))


def _replace(path: Path, write: Callable[[BinaryIO], object]) -> None:
    # A name of its own: another process may be writing the same file.
    part = path.with_name(f"{path.name}.{uuid4().hex[:8]}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except (OSError, RuntimeError) as error:  # torch.save raises the latter on a full disk
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise UserError(f"{path}: cannot be written ({reason})") from error


def save_weights(model: nn.Module, path: Path, about: Mapping[str, Any]) -> None:
    """Writes the weights of ``model`` as safetensors.

    Args:
        model: What to ship; nothing else is stored.
        path: The file.
        about: The options it was made with, and where it comes from; JSON in the file's metadata.
    """
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    # A single key: safetensors writes several in random order, and the same weights should be the
    # same bytes.
    write_bytes(save(state, {"about": json.dumps(dict(about))}), path)


def read_about(path: Path) -> dict[str, Any]:
    """What :func:`save_weights` stored beside the weights.

    Raises:
        UserError: If the file is missing, damaged, or not ours.
    """
    try:
        with safe_open(path, "pt") as file:
            about: dict[str, Any] = json.loads(file.metadata()["about"])
            return about
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: is not a checkpoint of this program ({error})") from error


def state_hash(model: nn.Module) -> str:
    """A name for the weights of a network, wherever they came from: SHA-256, 64 hex digits.

    It covers every parameter and buffer, also those that a checkpoint leaves out.
    """
    found = hashlib.sha256()
    for name, value in sorted([*model.named_parameters(), *model.named_buffers()]):
        found.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


def load_weights(model: nn.Module, path: Path) -> None:
    """Loads what :func:`save_weights` wrote; the names and shapes must be exactly the same.

    Raises:
        UserError: If they are not, or the file cannot be read.
    """
    try:
        with safe_open(path, "pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        model.load_state_dict(state)
    except (OSError, SafetensorError, RuntimeError) as error:
        first = str(error).splitlines()[0]
        raise UserError(f"{path}: does not fit the network it describes ({first})") from error


def save_state(state: Mapping[str, Any], path: Path) -> None:
    """Writes everything a training needs to go on: tensors, numbers, text, lists, dicts.

    Raises:
        UserError: If it cannot be written; what was there before is still there.
    """
    _replace(path, lambda file: torch.save(dict(state), file))


def load_state(path: Path) -> dict[str, Any]:
    """What :func:`save_state` wrote, on the CPU.

    Raises:
        UserError: If the file is damaged.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises a dozen unrelated types for a damaged file
        raise UserError(f"{path}: is damaged; remove it to train this stage anew") from error
    return state


def num_parameters(model: nn.Module) -> tuple[int, int]:
    """Parameters in all, and how many of them are trained."""
    every: list[Tensor] = list(model.parameters())
    return sum(p.numel() for p in every), sum(p.numel() for p in every if p.requires_grad)
