"""What is left of a network's figures when the pictures change a little."""

from pathlib import Path

import pandas as pd
from tqdm import tqdm

from datasets.captions import Captions
from datasets.changes import (
    BACKGROUND,
    CHANGES,
    ChangedImages,
    num_objects_found,
    without_background,
)
from jobs.build import evaluation_batches
from jobs.data import image_store
from jobs.scoring import score_all
from jobs.session import Network, Session
from utils.checkpoint import write_bytes
from utils.console import say
from utils.evaluation import METRICS, per_object
from utils.ranks import is_main
from utils.tables import cell, spelled
from utils.thresholds import figures_at_threshold

HEADS = {"auroc": "AUROC", "aupr": "AUPR", "recall": "recall", "false_alarms": "false alarms"}


def stress(session: Session, network: Network, scores: pd.DataFrame, folder: Path) -> None:
    """Scores the test images under each change; writes stress.md and stress.csv.

    Args:
        session: The experiment.
        network: The network, on its device.
        scores: Of the unchanged images.
        folder: Where the tables go.
    """
    rows, tested = {"unchanged": _figures(network, scores)}, session.splits["test"]
    whole, changes = image_store(session.run, session.splits), dict(CHANGES)
    if found := num_objects_found(whole, tested):
        changes[f"{BACKGROUND} ({found} of {len(tested)} images)"] = without_background
    for name, change in tqdm(changes.items(), "stress test", leave=False, disable=not is_main()):
        batches = evaluation_batches(
            ChangedImages(whole.root, whole.store, whole.lists, change=change),
            network.stage,
            tested,
            session.machine.device,
            captions=Captions("object", 0.0, 0),
        )
        rows[name] = _figures(network, score_all(network.model, batches, session.machine))
    if not is_main():
        return
    table = pd.DataFrame.from_dict(rows, orient="index")
    text = stress_text(table, f"{network.title}. {spelled(session.about)}")
    write_bytes(text.encode(), folder / "stress.md")
    csv = table.rename_axis("change").to_csv(float_format="%.4f")
    write_bytes(csv.encode(), folder / "stress.csv")
    say(f"\n{text}\n{folder}: stress.md, stress.csv")


def _figures(network: Network, scores: pd.DataFrame) -> dict[str, float]:
    mean = per_object(scores).iloc[-1]
    figures = {name: float(mean[name]) for name in METRICS}
    if network.verdicts is not None:
        at = figures_at_threshold(network.verdicts.decide(scores)).iloc[-1]
        figures |= {name: float(at[name]) for name in ("recall", "false_alarms")}
    return figures


def stress_text(table: pd.DataFrame, about: str) -> str:
    """The table as Markdown; it names the row with the lowest AUPR.

    Args:
        table: Rows: changes, ``unchanged`` first; columns: some of :data:`HEADS`, in percent.
        about: The network and where the figures come from.
    """
    spell = {
        name: ["-" if pd.isna(v) else f"{v:.1f}" for v in table[name]]
        for name in HEADS
        if name in table
    }
    shown = pd.DataFrame({"change": [cell(name) for name in table.index]})
    shown = pd.concat([shown, pd.DataFrame(spell).rename(columns=HEADS)], axis=1)
    align = ("left", *("right" for _ in table))
    pipe = shown.to_markdown(index=False, disable_numparse=True, colalign=align)
    worst = "-"
    if table["aupr"].notna().all():
        name = str(table["aupr"].iloc[1:].idxmin())
        changes = (
            f"{head} {table[key][name]:.1f} (was {table[key].iloc[0]:.1f})"
            for key, head in HEADS.items()
            if key in table
        )
        worst = f"{name}: {', '.join(changes)}"
    return (
        f"{pipe}\n\nWorst: {worst}.\n\nPercent; AUROC and AUPR: mean over objects; recall and "
        f"false alarms: over all images, at the threshold stored with the network. {about}.\n"
    )
