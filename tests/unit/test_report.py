"""The page about a tested network: complete, self-contained, and only what there are data for."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from jobs.reporting.evidence import gather
from jobs.reporting.plot import Plot
from jobs.reporting.report import Evidence, Picture, hardest, write_report
from options.load import load
from tests.fixtures import session_of
from utils.evaluation import per_object
from utils.verdicts import Verdicts

SECTIONS = ("Results", "At the threshold", "Curves", "The hardest images", "Where this comes from")
ROWS = pd.DataFrame(
    {
        "path": [f"{i}.png" for i in range(12)],
        "object": ["nut"] * 12,
        "label": [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1],
        "score": [0.1, 0.2, 0.3, 0.4, 0.5, 0.9, 0.05, 0.5, 0.6, 0.7, 0.8, 0.95],
    }
)


def page_of(folder, rows=ROWS, evidence=None, title="student"):
    write_report(
        folder, title, rows, per_object(rows), {"seed": 3, "x": None}, evidence or Evidence()
    )
    return (folder / "report.html").read_text(encoding="utf-8")


def sections(page):
    return re.findall(r"<h2>(.*?)</h2>", page)


def test_the_page_of_a_run_has_every_section_and_loads_nothing(smoke):
    page = (smoke / "run" / "student" / "report.html").read_text(encoding="utf-8")
    assert tuple(sections(page)) == SECTIONS
    table = pd.read_csv(smoke / "run" / "student" / "table.csv", index_col=0)
    assert f"<td>{table.loc['mean', 'auroc']:.1f}</td>" in page
    assert {source[:10] for source in re.findall(r"src=\"([^\"]*)", page)} == {"data:image"}
    assert not re.search(r"https?://|<script|@import|url\(", page)
    for title in (
        "ROC",
        "Precision and recall",
        "Scores",
        "Calibration on the test images",
        "Loss",
    ):
        assert f"<figcaption>{title}</figcaption>" in page
    # the 4 hardest images of each label, each with a heat map
    assert page.count("<img") == 16
    assert "val_fraction: 0.3" in page


def test_features_are_drawn_on_request(smoke, tmp_path):
    session = session_of(load(smoke / "smoke.yaml"))
    network = session.network("student")
    scores = session.scores(network)
    evidence = gather(session, network, scores, tsne=True)
    assert evidence.tsne.shape == (len(scores), 2)
    page = page_of(tmp_path, scores, evidence)
    by_label, by_object = re.findall(r"t-SNE of the features, by \w+</figcaption>.*?</svg>", page)
    assert by_label.count("<circle") == by_object.count("<circle") == len(scores)


def test_sections_without_data_are_left_out(tmp_path):
    assert sections(page_of(tmp_path)) == ["Results", "Curves", "Where this comes from"]
    only_normal = ROWS[ROWS["label"] == 0]
    page = page_of(tmp_path, only_normal)
    assert re.findall("<figcaption>(.*?)</figcaption>", page) == ["Scores"]
    assert "<dt>x</dt>" not in page


def test_mistakes_are_named(tmp_path):
    verdicts = Verdicts.at(0.5)
    verdicts = Verdicts({"": replace(verdicts.threshold_of(""), unsure=(0.45, 0.55))})
    image = np.zeros((4, 6, 3), dtype=np.uint8)
    pictures = [Picture(row, image, None) for row in hardest(ROWS)]
    page = page_of(tmp_path, verdicts.decide(ROWS), Evidence(pictures, verdicts))
    captions = re.findall(r"<figcaption>(\w+, score .*?)<small>(.*?)</small>", page)
    assert captions == [
        ("anomalous, score 0.050: missed", "6.png"),
        ("anomalous, score 0.500: unsure", "7.png"),
        ("anomalous, score 0.600: right", "8.png"),
        ("anomalous, score 0.700: right", "9.png"),
        ("normal, score 0.900: false alarm", "5.png"),
        ("normal, score 0.500: unsure", "4.png"),
        ("normal, score 0.400: right", "3.png"),
        ("normal, score 0.300: right", "2.png"),
    ]
    assert "threshold 0.5</span>" in page


def test_names_are_text_and_no_markup(tmp_path):
    name = "<script>alert(1)</script>&"
    page = page_of(tmp_path, ROWS.assign(object=name, path=name), title=name)
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&amp;" in page


@pytest.mark.parametrize(
    ("y_range", "expected"), [((0, 1), "48.0,230.0 348.0,10.0"), ((0, 2), "48.0,230.0 348.0,120.0")]
)
def test_a_line_is_where_the_axes_say(y_range, expected):
    plot = Plot("p", "x", "y", y_range=y_range)
    plot.line([0, 1], [0, 1], "a < b")
    assert f'points="{expected}"' in plot.html()
    assert "a &lt; b" in plot.html()
