"""Exports a trained student to a file that runs without this program, and checks the file."""

import json
import math
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from datasets.image_text import Batches
from datasets.record import Record
from jobs.build import evaluation_batches, load_model
from jobs.data import Data, read_data, read_splits, store_of, with_object
from jobs.exported import KEY, Exported, needed
from jobs.run_folder import StageFolder
from jobs.scoring import score_all
from models.base import AnomalyModel
from models.deployed import Deployed, deployed
from options.load import loads
from options.schema import Run, Stage
from utils.checkpoint import identity, read_about
from utils.console import say
from utils.device import Machine
from utils.errors import NothingToShowError, UserError
from utils.evaluation import per_object, score_images
from utils.lock import abandoned, hold
from utils.verdicts import EVERY, Verdicts

TOLERANCE = 1e-4  # of a score; 1e-5 is usual, and another processor may round more
INT8_POINTS = 1.0  # of AUROC, in percent; what int8 may change
INT8_VERDICTS = 0.1  # share of the images whose verdict it may change
INT8_TOLERANCE = 0.1  # of a score, where the images allow no AUROC
NUM_CALIBRATION = 100  # training images whose ranges int8 is fitted to
_UNFINISHED = ".export_"  # what folders of files that are not finished begin with
_QUANTIZED = ["Add", "Clip", "Conv", "Gemm", "MatMul", "Relu"]


@dataclass(frozen=True)
class Export:
    """What is asked for.

    Attributes:
        to: A key of :data:`FORMATS`.
        maps: Whether the file has class activation maps as an output.
        int8: Whether it computes with 8 bits.
        out: The file; ``None``: ``model.*`` beside the weights.
    """

    to: str
    maps: bool = False
    int8: bool = False
    out: Path | None = None

    def file(self, folder: Path) -> Path:
        """Where the file goes."""
        suffix = FORMATS[self.to][0]
        if self.out is not None and self.out.suffix != suffix:
            raise UserError(f"{self.out}: a file for {self.to} ends with {suffix}")
        return self.out or folder / f"model{'_int8' if self.int8 else ''}{suffix}"


def export(folder: Path, wanted: Export, dataset: Path | None = None) -> None:
    """Writes the student of a run to a file, and scores the validation images with both.

    Args:
        folder: The run's folder, or that of its student.
        wanted: What is asked for.
        dataset: Where the data set is, if no longer where it was.

    Raises:
        UserError: If there is no student, if a package is missing, or if the file's scores are not
            those of the network; there is no new file then.
    """
    place = student_folder(folder)
    model, stage, _ = load_model(place.best)
    target = wanted.file(place.path)
    verdicts = Verdicts.of(place.best)
    if verdicts is None:
        say(f"{place.best}: no threshold was found yet; the file has none (run.py finds it)")
    temperature = (verdicts and verdicts.temperature) or 1.0
    try:
        network = deployed(model, temperature, maps=wanted.maps)
    except NothingToShowError as error:
        raise UserError(f"{place.best}: {error}") from error
    if network is None:
        raise UserError(f"{place.best}: is a {stage.model.name}; only a student can be exported")
    data = _data(place, dataset)
    about = {
        **_about(place.best, stage, verdicts),
        "outputs": network.output_names,
        "int8": wanted.int8,
    }
    with _unfinished(target) as part:
        graph = FORMATS[wanted.to][1]
        graph(network, about, part, _Calibration(data, stage) if wanted.int8 else None)
        say(_checked(part, model, stage, data, wanted))
    say(f"{target}: {wanted.to}{', int8' if wanted.int8 else ''}, {', '.join(about['outputs'])}")


def student_folder(folder: Path) -> StageFolder:
    """The folder of the student of a run, whichever of both is named.

    Raises:
        UserError: If nothing is trained there.
    """
    for path in (folder / "student", folder):
        if (path / "best.safetensors").is_file():
            return StageFolder(path, "student")
    raise UserError(
        f"{folder}: holds no trained student; name the folder of a run, such as logs/demo"
    )


def _data(place: StageFolder, dataset: Path | None) -> Data:
    """The images that the network has learned from."""
    name = str(place.options)
    try:
        run: Run = loads(place.options.read_text(encoding="utf-8"), name)
    except OSError as error:
        raise UserError(f"{name}: is missing, so the validation images are not known") from error
    if dataset is not None:
        run = replace(run, dataset=replace(run.dataset, dir=dataset))
    if not run.dataset.dir.is_dir():
        raise UserError(
            f"{run.dataset.dir}: the data set is not there, and the file is checked with its "
            "validation images; say where it is: --data FOLDER"
        )
    splits = read_splits(run.dataset, store_of(run), place.path.parent)
    data = read_data(with_object(run, splits), "student", splits)
    place.check(run, {"data": data.hash})
    return data


def _about(best: Path, stage: Stage, verdicts: Verdicts | None) -> dict[str, Any]:
    return {
        "model": identity(best),
        "objects": read_about(best).get("objects", []),
        "image": {
            "size": list(stage.image.height_width),
            "resize": stage.image.resize,
            "range": stage.image.range,
        },
        "threshold": verdicts and verdicts.threshold_of(EVERY).value,
        "verdicts": verdicts and verdicts.to_json(),
    }


@contextmanager
def _unfinished(target: Path) -> Iterator[Path]:
    """A file in a folder beside ``target``, which it becomes when this ends without an error."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for file in abandoned(target.parent.glob(f"{_UNFINISHED}*/.lock")):
            shutil.rmtree(file.parent, ignore_errors=True)
        with (
            tempfile.TemporaryDirectory(prefix=_UNFINISHED, dir=target.parent) as folder,
            (Path(folder) / ".lock").open("wb") as lock,
        ):
            hold(lock)
            yield Path(folder) / target.name
            # OpenVINO: the weights first, so that no graph is without them.
            for file in sorted(Path(folder).glob(f"{target.stem}.*")):
                file.replace(target.parent / file.name)
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({error.strerror or error})") from error


class _Calibration:
    """Training images, one by one, as onnxruntime reads them to find ranges."""

    def __init__(self, data: Data, stage: Stage) -> None:
        step = math.ceil(len(data.train) / NUM_CALIBRATION)
        self.batches = iter(_batches(data, stage, data.train[::step]))

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        """Pictures, or ``None`` after the last."""
        batch = next(self.batches, None)
        if batch is None:
            return None
        return {"image": np.ascontiguousarray(batch.image.permute(0, 2, 3, 1).numpy())}


def _batches(data: Data, stage: Stage, records: Sequence[Record]) -> Batches:
    return evaluation_batches(data.store, stage, records, torch.device("cpu"))


def _checked(part: Path, model: AnomalyModel, stage: Stage, data: Data, wanted: Export) -> str:
    """The differences of scores and AUROC between network and file, as text.

    Raises:
        UserError: If they are above the tolerance.
    """
    records, which = (data.val, "validation") if data.val else (data.train, "training")
    machine, file = Machine.choose("cpu", "fp32"), Exported.open(part)
    batches = _batches(data, stage, records)
    before = score_all(model, batches, machine)
    bar = tqdm(batches, desc="checking the file", unit="batch", leave=False)
    after = score_images(file.score, bar, machine.device)
    difference = float((before["score"] - after["score"]).abs().max())
    auroc = [_auroc(frame) for frame in (before, after)]
    text = f"{len(records)} {which} images: largest difference of a score {difference:.1e}"
    if not math.isnan(auroc[0]):  # both labels are there
        kind = f"{wanted.to}{' int8' if wanted.int8 else ''}"
        text += f"; AUROC {auroc[0]:.2f} torch, {auroc[1]:.2f} {kind}"
    changed = 0
    if file.about["verdicts"]:
        verdicts = Verdicts.from_json(file.about["verdicts"])
        pairs = [verdicts.decide(frame)["verdict"] for frame in (before, after)]
        changed = int((pairs[0] != pairs[1]).sum())
        text += f"; verdicts that differ: {changed}"
    points = abs(auroc[0] - auroc[1])
    if wanted.int8:
        is_same = points <= INT8_POINTS if points == points else difference <= INT8_TOLERANCE
        is_same = is_same and changed <= INT8_VERDICTS * len(records)
    else:
        is_same = difference <= TOLERANCE
    if not is_same:
        allowed = f"{TOLERANCE:g}"
        if wanted.int8:
            allowed = f"{INT8_POINTS:g} point of AUROC, or {INT8_VERDICTS:.0%} of the verdicts"
        raise UserError(f"{text}; more than {allowed}, so no file is written")
    return text


def _auroc(scores: pd.DataFrame) -> float:
    return float(per_object(scores)["auroc"]["mean"])


def _example(network: Deployed, about: Mapping[str, Any]) -> torch.Tensor:
    return torch.zeros(2, *about["image"]["size"], 3, dtype=torch.uint8)


def _to_onnx(
    network: Deployed, about: Mapping[str, Any], part: Path, calibration: _Calibration | None
) -> None:
    onnx = needed("onnx")
    needed("onnxruntime")
    names = network.output_names
    with warnings.catch_warnings():
        # The newer exporter gives the same graph in fifty times the time, and needs onnxscript.
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(
                network,
                (_example(network, about),),
                str(part),
                dynamo=False,
                input_names=["image"],
                output_names=names,
                dynamic_axes={name: {0: "batch"} for name in ["image", *names]},
                opset_version=18,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"not for ONNX: {reason}; choose --to torchscript") from error
    model = onnx.load(part)
    if calibration is not None:
        model = _quantized(model, part, calibration)
    onnx.helper.set_model_props(model, {KEY: json.dumps(about)})
    part.write_bytes(model.SerializeToString())


def _quantized(model: Any, part: Path, calibration: _Calibration) -> Any:
    """The graph with 8-bit weights and activations, but for the classifier."""
    onnx, quantization = needed("onnx"), needed("onnxruntime.quantization")
    needed("onnxruntime.quantization.shape_inference").quant_pre_process(
        model, str(part), skip_symbolic_shape=True
    )
    last = [node.name for node in onnx.load(part).graph.node if node.op_type == "Gemm"][-1:]
    quantization.quantize_static(
        str(part),
        str(part),
        calibration,
        per_channel=True,
        op_types_to_quantize=_QUANTIZED,
        nodes_to_exclude=last,
    )
    return onnx.load(part)


def _to_openvino(
    network: Deployed, about: Mapping[str, Any], part: Path, calibration: _Calibration | None
) -> None:
    openvino, graph = needed("openvino"), part.with_name("graph.onnx")
    _to_onnx(network, about, graph, calibration)
    model = openvino.convert_model(graph)
    model.set_rt_info(json.dumps(about), [KEY])
    openvino.save_model(model, part, compress_to_fp16=False)


def _to_torchscript(
    network: Deployed, about: Mapping[str, Any], part: Path, calibration: _Calibration | None
) -> None:
    if calibration is not None:
        raise UserError("--int8: for onnx and openvino only")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and yet what C++ programs load
        graph = torch.jit.trace(network, (_example(network, about),), check_trace=False)
        torch.jit.save(graph, part, _extra_files={KEY: json.dumps(about)})


Writer = Callable[[Deployed, Mapping[str, Any], Path, _Calibration | None], None]
FORMATS: dict[str, tuple[str, Writer]] = {
    "onnx": (".onnx", _to_onnx),
    "openvino": (".xml", _to_openvino),
    "torchscript": (".pt", _to_torchscript),
}
