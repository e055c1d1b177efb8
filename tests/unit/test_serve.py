"""The page's answers: scores of test.py, limits, bad uploads."""

import threading

import numpy as np
import pandas as pd
import pytest

from jobs.predicting.predictor import Predictor
from jobs.serving import serving
from utils.errors import NothingToShowError

fastapi = pytest.importorskip("fastapi", reason="requirements-serve.txt")
pytest.importorskip("python_multipart", reason="requirements-serve.txt")


@pytest.fixture(scope="module")
def predictor(smoke):
    return Predictor.load(smoke / "run", "cpu")


@pytest.fixture
def client(predictor):
    from fastapi.testclient import TestClient

    return TestClient(serving.make_app(predictor, 4))


def post(client, content, address="/predict", name="picture.jpg"):
    return client.post(address, files={"file": (name, content)})


def test_an_answer_has_the_score_of_test_py(client, smoke, predictor):
    for _, row in pd.read_csv(smoke / "run" / "student" / "scores.csv").head(4).iterrows():
        content = (smoke / "visa" / row["path"]).read_bytes()
        found = post(client, content, name="../../etc/passwd").json()
        assert found["score"] == pytest.approx(row["score"], abs=1e-6)
        assert found["threshold"] == predictor.verdicts.threshold_of("").value
        assert found["verdict"] == predictor.verdicts.verdict(row["score"], "")
        assert "map" not in found
    found = post(client, content, "/predict?map=true").json()
    assert found["map"].startswith("data:image/png;base64,")


def test_bad_uploads_are_one_sentence_and_the_next_is_answered(client, smoke, monkeypatch):
    picture = next((smoke / "visa").rglob("*.JPG")).read_bytes()
    for content in (b"", b"<html>", picture[: len(picture) // 2]):
        answer = post(client, content)
        assert answer.status_code == 422
        assert "the upload: " in answer.json()["detail"]
        assert "/tmp" not in answer.text
    assert client.post("/predict").status_code == 422
    assert client.post("/predict", data={"file": "text"}).status_code == 422
    monkeypatch.setattr(serving, "MOST_BYTES", 100)
    assert post(client, picture).status_code == 413
    monkeypatch.setattr(serving, "_MOST_BODY", 100)
    assert post(client, picture).status_code == 413
    monkeypatch.undo()
    assert post(client, picture).status_code == 200
    assert client.get("/health").json()["waiting"] == 0


def test_a_score_that_is_no_number_and_a_network_without_map(client, predictor, smoke, monkeypatch):
    picture = next((smoke / "visa").rglob("*.JPG")).read_bytes()

    def no_map(*_):
        raise NothingToShowError

    monkeypatch.setattr(Predictor, "maps", no_map)
    answer = post(client, picture, "/predict?map=true")
    assert answer.status_code == 200
    assert "map" not in answer.json()
    monkeypatch.setattr(Predictor, "scores", lambda *_: np.array([np.nan]))
    answer = post(client, picture)
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("the upload: the score is nan")


def test_a_full_queue_is_said(predictor, smoke, monkeypatch):
    from fastapi.testclient import TestClient

    picture = next((smoke / "visa").rglob("*.JPG")).read_bytes()
    started, go = threading.Event(), threading.Event()
    judge = serving.Judge.judge

    def slow(*args, **options):
        started.set()
        assert go.wait(60)
        return judge(*args, **options)

    monkeypatch.setattr(serving.Judge, "judge", slow)
    with TestClient(serving.make_app(predictor, 1)) as client:
        first = []
        thread = threading.Thread(target=lambda: first.append(post(client, picture)))
        thread.start()
        assert started.wait(60)
        assert post(client, picture).status_code == 429
        go.set()
        thread.join()
        assert first[0].status_code == 200


def test_the_page_and_its_description(client):
    for address in ("/", "/docs"):
        page = client.get(address).text
        assert "http://" not in page
        assert "https://" not in page
    for word in ("POST /predict", "GET /health", "multipart/form-data", "boolean"):
        assert word in page
    paths = client.get("/openapi.json").json()["paths"]
    assert set(paths) == {"/predict", "/health"}
    assert "multipart/form-data" in paths["/predict"]["post"]["requestBody"]["content"]


def test_a_network_that_must_be_told_something_is_refused(smoke):
    teacher = Predictor.load(smoke / "run" / "teacher", "cpu")
    with pytest.raises(serving.UserError, match=r"serve\.py serves students"):
        serving.make_app(teacher, 1)
