"""The smoke run's losses may not move; if they must, docs/decisions.md says why.

To write them anew: ``python -m pytest -c .ci/pytest.ini tests/golden --golden``.
"""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch

FILE = Path(__file__).with_name("smoke.json")


def losses(folder: Path) -> dict[str, list[float]]:
    return {
        stage: pd.read_csv(folder / "run" / stage / "log.csv")["loss"].tolist()
        for stage in ("teacher", "student")
    }


def test_losses_of_the_smoke_run(smoke, request):
    found = losses(smoke)
    if request.config.getoption("--golden"):
        content = {"seed": 7, "torch": torch.__version__.split("+")[0], **found}
        FILE.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    golden = json.loads(FILE.read_text(encoding="utf-8"))
    is_same_torch = golden["torch"] == torch.__version__.split("+")[0]
    for stage, values in found.items():
        # Another PyTorch draws the same random numbers but may sum in another order.
        assert values == pytest.approx(golden[stage], rel=2e-3 if is_same_torch else 5e-2)
