"""Exported files: what is in one, and how it is run."""

import importlib
import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from utils.batch import Batch
from utils.errors import UserError

Arrays = dict[str, NDArray[np.float32]]
Runner = Callable[[NDArray[np.uint8]], Arrays]
KEY = "about"  # where a file holds its description, as JSON


@dataclass(frozen=True)
class Exported:
    """A network in an exported file.

    Attributes:
        about: Its description: ``model`` (the hash of the network), ``image`` (``size``,
            ``resize``, ``range``), ``objects``, ``outputs``, ``threshold`` and ``verdicts``, which
            :meth:`utils.verdicts.Verdicts.from_json` reads; ``None`` where it has no threshold.
        run: From RGB bytes, shape ``(B, H, W, 3)``, to the outputs by name: ``score`` and
            ``probability`` ``(B,)``, ``map`` ``(B, H, W)``.
    """

    about: Mapping[str, Any]
    run: Runner

    @classmethod
    def open(cls, file: Path) -> "Exported":
        """The network in ``file``: ``.onnx``, ``.xml`` (with its ``.bin``) or ``.pt``.

        Raises:
            UserError: If the file is missing or damaged, was not written by ``export.py``, or if
                the package that runs it is not installed.
        """
        if file.suffix not in _OPENERS:
            raise UserError(f"{file}: exported files end with {', '.join(_OPENERS)}")
        if not file.is_file():
            raise UserError(f"{file}: does not exist; export.py writes such files")
        try:
            text, run = _OPENERS[file.suffix](file)
            return cls(json.loads(text), run)
        except UserError:
            raise
        except Exception as error:  # each runtime raises types of its own
            first = str(error).strip().splitlines()[-1:] or [type(error).__name__]
            raise UserError(f"{file}: is damaged, or not of export.py ({first[0]})") from error

    def score(self, batch: Batch) -> torch.Tensor:
        """As :meth:`models.base.AnomalyModel.score`."""
        pixels = np.ascontiguousarray(batch.image.permute(0, 2, 3, 1).cpu().numpy())
        return torch.from_numpy(np.asarray(self.run(pixels)["score"]))


def needed(name: str, extra: str = "export") -> Any:
    """An optional package.

    Args:
        name: The package, or a module in it.
        extra: It is listed in ``requirements-<extra>.txt``.

    Raises:
        UserError: If it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise UserError(
            f"{name.split('.')[0]} is not installed; pip install -r requirements-{extra}.txt"
        ) from error


def _open_onnx(file: Path) -> tuple[str, Runner]:
    runtime = needed("onnxruntime")
    session = runtime.InferenceSession(file.read_bytes(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    text = session.get_modelmeta().custom_metadata_map[KEY]
    return text, lambda image: dict(zip(names, session.run(None, {"image": image}), strict=True))


def _open_openvino(file: Path) -> tuple[str, Runner]:
    openvino = needed("openvino")
    model = openvino.Core().read_model(file)
    # By default a processor with units for bf16 computes in it, and scores change.
    network = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    names = [output.get_any_name() for output in network.outputs]

    def run(image: NDArray[np.uint8]) -> Arrays:
        found = network({"image": image})
        return {name: found[name].copy() for name in names}

    return model.get_rt_info([KEY]).astype(str), run


def _open_torchscript(file: Path) -> tuple[str, Runner]:
    extra = {KEY: ""}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit")  # deprecated, like writing it
        network = torch.jit.load(file, map_location="cpu", _extra_files=extra)
    about = json.loads(extra[KEY])

    def run(image: NDArray[np.uint8]) -> Arrays:
        with torch.inference_mode():
            found = network(torch.from_numpy(image))
        return {n: one.numpy() for n, one in zip(about["outputs"], found, strict=True)}

    return extra[KEY], run


_OPENERS: dict[str, Callable[[Path], tuple[str, Runner]]] = {
    ".onnx": _open_onnx,
    ".pt": _open_torchscript,
    ".xml": _open_openvino,
}
EXPORTED = tuple(_OPENERS)
