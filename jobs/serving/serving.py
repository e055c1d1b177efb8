"""A page and an address on which a trained student judges pictures."""

import asyncio
import tempfile
from base64 import b64encode
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from datasets.image import read_view
from datasets.record import Record
from jobs.exported import needed
from jobs.predicting.overlays import scale_of
from jobs.predicting.predicting import row_of
from jobs.predicting.predictor import Predictor
from jobs.reporting.evidence import overlay
from utils.batch import Batch
from utils.errors import NothingToShowError, UserError

_ANSWER = ("score", "probability", "threshold", "verdict", "model")
MOST_BYTES = 32 * 2**20  # of a picture
_MOST_BODY = MOST_BYTES + 2**16  # with what the form adds
_UPLOAD = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            }
        },
    }
}


class Judge:
    """Judges one picture at a time, so that memory holds one decoded picture.

    Args:
        predictor: The student.
    """

    def __init__(self, predictor: Predictor) -> None:
        if predictor.needs_object:
            raise UserError(
                f"{predictor.title}: has to be told what a picture shows; serve.py serves students"
            )
        self.predictor = predictor

    def judge(self, content: Any, name: str, *, has_map: bool) -> dict[str, Any]:
        """The answer to one upload.

        Args:
            content: The open file.
            name: The object in the picture, for a threshold of its own; empty: not known.
            has_map: Whether the answer holds a heat map.

        Raises:
            UserError: If it is no picture, damaged or too large.
        """
        predictor = self.predictor
        with tempfile.NamedTemporaryFile() as file:
            file.write(content.read())
            file.flush()
            try:
                image = read_view(Path(file.name), predictor.view)
            except UserError as error:
                raise UserError(str(error).replace(file.name, "the upload")) from error
            except Exception as error:  # decoders raise any type for damaged files
                raise UserError("the upload: cannot be read as a picture") from error
        batch = Batch(image[None], torch.zeros(1, dtype=torch.int64), [name], [""])
        record = Record(path="", object=name, label=0)
        row = row_of(predictor, record, float(predictor.scores(batch)[0]))
        if row.error:
            raise UserError(f"the upload: {row.error}")
        answer: dict[str, Any] = {key: getattr(row, key) for key in _ANSWER}
        answer["verdict"] = row.verdict or None
        if has_map and (heat := _heat(predictor, batch)) is not None:
            share = (heat / scale_of(heat.numpy(), is_share=predictor.has_shares)).numpy()
            photo = image.permute(1, 2, 0).numpy()
            png = BytesIO()
            Image.fromarray(overlay(photo, share)).save(png, "PNG")
            answer["map"] = f"data:image/png;base64,{b64encode(png.getvalue()).decode()}"
        return answer


def _heat(predictor: Predictor, batch: Batch) -> Tensor | None:
    """The heat map of the one picture, ``(H, W)``; ``None`` if the network has none."""
    try:
        return predictor.maps(batch)[0]
    except NothingToShowError:
        return None


def make_app(predictor: Predictor, queue: int) -> Any:
    """The application: ``/``, ``/predict``, ``/health``, and their description in ``/docs``.

    Args:
        predictor: The student.
        queue: How many requests may wait; others get status 429.

    Raises:
        UserError: If FastAPI is not installed, or the network is no student.
    """
    fastapi, responses = needed("fastapi", "serve"), needed("fastapi.responses", "serve")
    needed("python_multipart", "serve")
    judge, worker = Judge(predictor), ThreadPoolExecutor(1)
    # The usual documentation page loads scripts from another host; ours is below.
    app = fastapi.FastAPI(title="Inspection", docs_url=None, redoc_url=None)
    _add_pages(app, responses.HTMLResponse)
    waiting = 0

    @app.get("/health")  # type: ignore[untyped-decorator]
    async def health() -> dict[str, Any]:
        """Whether it runs, the name of the model, and how many requests wait."""
        return {"status": "ok", "model": predictor.name, "waiting": waiting}

    async def predict(request: Any, object: str = "", map: bool = False) -> dict[str, Any]:  # noqa: A002
        """The verdict on one picture: score, probability, threshold, verdict and model.

        Takes the form's file. object: the threshold of this object; map: adds a heat map.
        """
        nonlocal waiting
        if waiting >= queue:
            raise fastapi.HTTPException(429, "too many requests; try again", {"Retry-After": "1"})
        waiting += 1
        try:
            _limit(request, fastapi.HTTPException)
            async with request.form(max_files=1, max_fields=1) as form:
                upload = form.get("file")
                if upload is None or isinstance(upload, str):
                    raise fastapi.HTTPException(422, "send one picture as the form's file")
                if (upload.size or 0) > MOST_BYTES:
                    raise fastapi.HTTPException(413, _TOO_LARGE)
                loop = asyncio.get_running_loop()
                work = loop.run_in_executor(
                    worker, lambda: judge.judge(upload.file, object, has_map=map)
                )
                return await work
        except UserError as error:
            raise fastapi.HTTPException(422, str(error)) from error
        finally:
            waiting -= 1

    predict.__annotations__["request"] = fastapi.Request
    app.post("/predict", openapi_extra=_UPLOAD)(predict)
    return app


def _add_pages(app: Any, html: Any) -> None:
    """The pages for people."""
    page = Path(__file__).with_name("page.html").read_text(encoding="utf-8")

    @app.get("/", response_class=html, include_in_schema=False)  # type: ignore[untyped-decorator]
    async def show() -> str:
        return page

    @app.get("/docs", response_class=html, include_in_schema=False)  # type: ignore[untyped-decorator]
    async def docs() -> str:
        return page_of_api(app.openapi())


def page_of_api(api: Mapping[str, Any]) -> str:
    """The description in ``/openapi.json`` as a page for people."""
    parts = []
    for path, operations in api["paths"].items():
        for method, about in operations.items():
            rows = [
                f"<tr><td><code>{escape(each['name'])}</code><td>{each['schema']['type']}"
                for each in about.get("parameters", [])
            ]
            form = about.get("requestBody", {}).get("content", {})
            rows += [f"<tr><td><code>file</code><td>{escape(kind)}" for kind in form]
            parts.append(
                f"<h2><code>{method.upper()} {escape(path)}</code></h2>"
                f"<p>{escape(about.get('description', ''))}</p><table>{''.join(rows)}</table>"
            )
    return _API_PAGE.format(title=escape(api["info"]["title"]), parts="".join(parts))


_API_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>{title}</title>
<link rel="icon" href="data:,">
<style>:root {{ color-scheme: light dark }} body {{ font: 16px/1.45 system-ui, sans-serif;
max-width: 50rem; margin: 0 auto; padding: 1rem; overflow-wrap: anywhere }}
td {{ padding-right: 2rem }}</style>
<h1>{title}</h1><p>For programs: <a href="openapi.json">openapi.json</a></p>{parts}
"""
_TOO_LARGE = f"a picture may have {MOST_BYTES // 2**20} MB"


def _limit(request: Any, error: type[Exception]) -> None:
    """Stops reading a body that is too large, whatever its header says."""
    receive, read = request._receive, 0

    async def limited() -> Any:
        nonlocal read
        message = await receive()
        read += len(message.get("body", b""))
        if read > _MOST_BODY:
            raise error(413, _TOO_LARGE)
        return message

    request._receive = limited


def serve(predictor: Predictor, host: str, port: int, queue: int) -> None:
    """Serves until Ctrl-C.

    Raises:
        UserError: As :func:`make_app`.
    """
    uvicorn = needed("uvicorn", "serve")
    uvicorn.run(make_app(predictor, queue), host=host, port=port, log_level="warning")
