"""Files of weights and of the state of a training; they are complete or do not exist."""

import hashlib
import json
import os
import re
import zipfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

import torch
from torch import Tensor, nn

from utils.download import sha256_of
from utils.errors import UserError
from utils.lock import abandoned, hold

PART = re.compile(r".+\.[0-9a-f]{8}\.part")  # of a file that is not finished
_tidy: set[Path] = set()  # folders
_CHECKSUM = "sha256"  # key of the metadata
_DAMAGED = "is damaged: its checksum is wrong; copy the file again, or train again"


def write_bytes(content: bytes, path: Path) -> None:
    """Writes a file; if this is interrupted, the file keeps its old content.

    Raises:
        UserError: If it cannot be written; the file keeps its old content.
    """
    _replace(path, lambda file: file.write(content))


def _replace(path: Path, write: Callable[[BinaryIO], object]) -> None:
    _remove_unfinished(path.parent)
    # A random name: another process may write the same file.
    part = path.with_name(f"{path.name}.{uuid4().hex[:8]}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("wb") as raw:
                hold(raw)
                file = _Writer(raw)
                try:
                    write(file)  # type: ignore[arg-type]
                except RuntimeError as error:  # torch.save turns errors of the file into this
                    raise file.error or error from error
                raw.flush()
                os.fsync(raw.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise UserError(f"{path}: cannot be written ({reason})") from error


def _remove_unfinished(folder: Path) -> None:
    """Removes, once for each folder, what processes that were killed have left in it."""
    if folder not in _tidy:
        _tidy.add(folder)
        with suppress(OSError):  # the folder is made later, or is none
            for file in abandoned(f for f in folder.iterdir() if PART.fullmatch(f.name)):
                file.unlink()


class _Writer:
    """A file that keeps the error of a failed write."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, content: Any) -> int:
        try:
            return self.file.write(content)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()


def save_weights(model: nn.Module, path: Path, about: Mapping[str, Any]) -> None:
    """Writes the weights of ``model`` as safetensors; the same weights are the same bytes.

    Args:
        model: The network; nothing but its weights is stored.
        path: The file.
        about: The options and the origin of the network; stored as JSON in the metadata of the
            file, with checksums of this and of the weights.
    """
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    _save(state, path, about)


def _save(state: Mapping[str, Tensor], path: Path, about: Mapping[str, Any]) -> None:
    from safetensors.torch import save

    checksum = _checksum(dict(about), tensors_hash(state.items()))
    # A single key: safetensors writes several in random order.
    metadata = {"about": json.dumps({**about, _CHECKSUM: checksum})}
    write_bytes(save(dict(state), metadata), path)


def add_verdicts(path: Path, verdicts: Mapping[str, Any]) -> None:
    """Stores how scores become verdicts with the weights, which do not change.

    The file keeps its :func:`identity`, so that what was made with it before still knows it.

    Raises:
        UserError: As :func:`load_weights`.
    """
    added = {"identity": identity(path), "verdicts": dict(verdicts)}
    about = {**read_about(path), **added}
    _save(_read_weights(path), path, about)


def identity(path: Path) -> str:
    """SHA-256 that names a trained network: of its file as it was before verdicts were added."""
    return str(read_about(path).get("identity") or sha256_of(path))


def _checksum(about: Mapping[str, Any], weights: str) -> dict[str, str]:
    text = json.dumps([dict(about), weights])
    return {"weights": weights, "about": hashlib.sha256(text.encode()).hexdigest()}


def read_about(path: Path) -> dict[str, Any]:
    """The argument ``about`` of :func:`save_weights`, read from the file.

    Raises:
        UserError: If the file is missing, damaged, or was not written by this program.
    """
    return _read_about(path)[0]


def _read_about(path: Path) -> tuple[dict[str, Any], str]:
    """The argument ``about``, and the checksum of the weights; empty in files of old versions."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            about: dict[str, Any] = dict(json.loads(file.metadata()["about"]))
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: is not a checkpoint of this program ({error})") from error
    checksum = about.pop(_CHECKSUM, None)
    if checksum is None:
        return about, ""
    weights = checksum["weights"] if isinstance(checksum, dict) else ""
    if checksum != _checksum(about, weights):
        raise UserError(f"{path}: {_DAMAGED}")
    return about, weights


def tensors_hash(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """SHA-256 of named tensors, 64 hex digits; it does not depend on their order and device."""
    digest = hashlib.sha256()
    for name, value in sorted(tensors, key=lambda item: item[0]):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def state_hash(model: nn.Module) -> str:
    """SHA-256 of all parameters and buffers, including those that a checkpoint leaves out."""
    return tensors_hash([*model.named_parameters(), *model.named_buffers()])


def load_weights(model: nn.Module, path: Path) -> None:
    """Loads the weights that :func:`save_weights` wrote.

    Raises:
        UserError: If names or shapes differ, or if the file cannot be read or is damaged.
    """
    state = _read_weights(path)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        first = str(error).splitlines()[0]
        raise UserError(f"{path}: does not fit the network it describes ({first})") from error


def _read_weights(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError, safe_open

    _, checksum = _read_about(path)
    try:
        with safe_open(path, "pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: cannot be read as weights ({error})") from error
    if checksum and tensors_hash(state.items()) != checksum:
        raise UserError(f"{path}: {_DAMAGED}")
    return state


def save_state(state: Mapping[str, Any], path: Path) -> None:
    """Writes the state that resumes a training: tensors, numbers, text, lists, dicts.

    Raises:
        UserError: If it cannot be written; the file keeps its old content.
    """
    _replace(path, lambda file: torch.save(dict(state), file))


def load_state(path: Path) -> dict[str, Any]:
    """The state that :func:`save_state` wrote, on the CPU.

    Raises:
        UserError: If the file cannot be read, or is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if broken := archive.testzip():  # torch.load does not check the checksums
                raise ValueError(f"the checksum of {broken} is wrong")
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or "not enough memory"
        raise UserError(f"{path}: cannot be read ({reason})") from error
    except Exception as error:  # torch.load raises a dozen unrelated types for a damaged file
        raise UserError(f"{path}: is damaged; remove it to train this stage again") from error
    return state


def num_parameters(model: nn.Module) -> tuple[int, int]:
    """Number of all parameters, and of those that are trained."""
    every: list[Tensor] = list(model.parameters())
    return sum(p.numel() for p in every), sum(p.numel() for p in every if p.requires_grad)
