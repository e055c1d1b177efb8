"""The figures of the four baselines in README are those that the files in the repository give."""

import re
from pathlib import Path

import pandas as pd
import pytest

import compare as compare_py
from demo import write

TITLES = ("CLIP", "WinCLIP", "VAND", "AnomalyCLIP")


def printed():
    """AUROC and AUPR of each method and object as README prints them, by (title, object)."""
    page = Path("README.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:-1] for line in page.splitlines() if line.startswith("|")]
    header = next(row for row in rows if "AnomalyCLIP" in "".join(row))
    figures = {}
    for row in rows[rows.index(header) + 3 :][:5]:
        name, *cells = (cell.strip() for cell in row)
        for title, cell in zip(header[1:], cells, strict=True):
            found = [float(number) for number in re.findall(r"[\d.]+", cell)]
            figures[title.strip(), name] = found
    return figures


@pytest.mark.slow
def test_the_columns_are_those_that_readme_prints(tmp_path):
    write(tmp_path / "demo")
    words = [f"dataset.dir={tmp_path}/demo", f"dataset.cache={tmp_path}/cache", f"dir={tmp_path}"]
    assert compare_py.main(["options/comparison/demo.yaml", "columns.ours=null", *words]) == 0
    table = pd.read_csv(tmp_path / "comparison.csv").set_index(["method", "object"])
    figures = printed()
    assert len(table) == len(TITLES) * 5
    for title, name in table.index:
        found = table.loc[(title, name), ["auroc", "aupr"]].tolist()
        # Processors round differently: two images that change places move an AUROC by 0.125.
        assert found == pytest.approx(figures[title, name], abs=0.4), (title, name)
