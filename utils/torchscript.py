"""Takes the tensors out of TorchScript archives without executing the program that is in them.

``torch.jit.load`` compiles the archive's code and calls the ``__setstate__`` of its modules: a
file of weights could do anything.
"""

import io
import math
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

MAX_PICKLE_BYTES = 16 << 20  # those of OpenAI's largest archive are less than 1 MB
MAX_SOURCE_BYTES = 1 << 20  # of one file of code; theirs have some kilobytes
MAX_MODULES = 100_000
_DTYPES = {
    "BFloat16Storage": torch.bfloat16,
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "ShortStorage": torch.int16,
}


def is_torchscript(file: Path) -> bool:
    """Whether ``file`` is a TorchScript archive."""
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        return any(name.split("/")[1:2] == ["code"] for name in archive.namelist())


def read_torchscript(file: Path) -> dict[str, Tensor]:
    """The parameters and buffers of a TorchScript archive by name, on the CPU.

    Source:
        The format, https://docs.pytorch.org/docs/stable/jit.html and
        torch/csrc/jit/docs/serialization.md: ``data.pkl`` is a pickle of the modules, ``data/``
        holds the tensors' bytes, ``code/`` names the parameters and buffers of each class.

    Raises:
        Exception: Of any type, if the archive is damaged or holds something else; nothing in it is
            executed.
    """
    with zipfile.ZipFile(file) as archive:
        found = _Unpickler(archive).load()
        return {name: _tensor(archive, stored) for name, stored in _named(found, "", [])}


class _Stored(NamedTuple):
    """A tensor that has not been read yet; ``storage``: record, type and number of values."""

    storage: tuple[str, torch.dtype, int]
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class _Module:
    """An object of a class of the archive: nothing but its attributes.

    Attributes:
        tensors: Names of its parameters and buffers.
    """

    tensors: frozenset[str]

    def __setstate__(self, attributes: Any) -> None:
        self.attributes = dict(attributes)


class _Unpickler(pickle._Unpickler):
    """Makes modules, descriptions of tensors, and lists: no class or function is looked up.

    It is the one in Python because that in C reserves as much memory as the file says.
    """

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self.archive = archive
        self.root = archive.namelist()[0].partition("/")[0]
        super().__init__(io.BytesIO(self.record("data.pkl", MAX_PICKLE_BYTES)))

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "__torch__":
            return type(name, (_Module,), {"tensors": self.tensors_of(module, name)})
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, size, stride, *_: _Stored(storage, offset, size, stride)
        if module == "torch.jit._pickle":  # they check and mark the types of lists and dicts
            return lambda value, *_: value
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        raise ValueError(f"holds {module}.{name}, which is no part of a network")

    def persistent_load(self, pid: Any) -> tuple[str, torch.dtype, int]:
        _, dtype, key, _, count = pid
        return f"{self.root}/data/{key}", dtype, count

    def record(self, name: str, limit: int) -> bytes:
        """A file of the archive; a compressed one of a kilobyte could fill the memory."""
        if self.archive.getinfo(f"{self.root}/{name}").file_size > limit:
            raise ValueError(f"{name} is too large")
        return self.archive.read(f"{self.root}/{name}")

    def tensors_of(self, module: str, name: str) -> frozenset[str]:
        """Names of the parameters and buffers of a class, from its source."""
        file = f"code/{module.replace('.', '/')}.py"
        source = self.record(file, MAX_SOURCE_BYTES).decode()
        lists = r"\(Module\):\n  __parameters__ = \[(.*)\]\n  __buffers__ = \[(.*)\]"
        match = re.search(rf"^class {re.escape(name)}{lists}", source, re.MULTILINE)
        return frozenset(re.findall(r'"([^"]*)"', " ".join(match.groups()) if match else ""))


def _named(module: _Module, prefix: str, visited: list[_Module]) -> Iterator[tuple[str, _Stored]]:
    visited.append(module)
    if len(visited) > MAX_MODULES:
        raise ValueError("has too many modules")
    for name, value in module.attributes.items():
        if isinstance(value, _Module):
            yield from _named(value, f"{prefix}{name}.", visited)
        elif isinstance(value, _Stored) and name in module.tensors:
            yield f"{prefix}{name}", value


def _tensor(archive: zipfile.ZipFile, stored: _Stored) -> Tensor:
    record, dtype, count = stored.storage
    info = archive.getinfo(record)
    if info.compress_type != zipfile.ZIP_STORED or info.file_size != count * dtype.itemsize:
        raise ValueError(f"{record} has another size")
    if not math.prod(stored.size):
        return torch.empty(stored.size, dtype=dtype)
    values = torch.frombuffer(bytearray(archive.read(record)), dtype=dtype)
    return values.as_strided(stored.size, stored.stride, stored.offset)
