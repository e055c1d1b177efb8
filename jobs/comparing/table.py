"""Methods side by side: objects in rows and methods in columns, or the other way round."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pandas as pd

from utils.errors import UserError
from utils.evaluation import METRICS
from utils.tables import cell

Layout = Literal["objects", "methods"]
_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_ESCAPES = {
    "\\": r"\textbackslash{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
}


@dataclass(frozen=True)
class Method:
    """One method and its figures.

    Attributes:
        title: Its title in the table.
        tables: The result of ``per_object`` for each seed; empty: it could not be scored.
        scores: The scores of the images for each seed; empty where they are not known.
        facts: Facts that a comparison needs, such as ``{"trained on": "nothing"}``.
        note: A footnote, such as the reason why there are no figures.
        group: The best figure is chosen among methods of one group: AUPR cannot be compared between
            different lists of images.
    """

    title: str
    tables: Sequence[pd.DataFrame]
    facts: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    group: str = ""
    scores: Sequence[pd.DataFrame] = ()

    @property
    def means(self) -> pd.DataFrame:
        """Mean over the seeds, ``auroc`` and ``aupr`` of each object and of ``mean``."""
        return self._over_seeds("mean")

    @property
    def spreads(self) -> pd.DataFrame:
        """Standard deviation over the seeds (n - 1); NaN for a single one."""
        return self._over_seeds("std")

    def _over_seeds(self, statistic: str) -> pd.DataFrame:
        empty = pd.DataFrame(columns=list(METRICS), dtype=float)
        figures = pd.concat([table[list(METRICS)] for table in self.tables] or [empty])
        return figures.groupby(level=0, sort=False).agg(statistic)


@dataclass(frozen=True)
class _Style:
    """The markup of a kind of file."""

    text: Callable[[str], str]
    bold: Callable[[str], str]
    italic: Callable[[str], str]
    mark: Callable[[int], str]


MARKDOWN = _Style(
    text=cell,
    bold=lambda text: f"**{text}**",
    italic=lambda text: f"*{text}*",
    mark=lambda number: str(number).translate(_SUPERSCRIPTS),
)
LATEX = _Style(
    text=lambda text: "".join(_ESCAPES.get(s, s) for s in text).replace("--", "-{}-"),
    bold=lambda text: f"\\textbf{{{text}}}",
    italic=lambda text: f"\\textit{{{text}}}",
    mark=lambda number: f"$^{{{number}}}$",
)


def _objects(methods: Sequence[Method], first: Sequence[str]) -> list[str]:
    """``first``, then the other objects of the methods in their order, then ``mean``."""
    names = [*first, *(str(name) for method in methods for name in method.means.index)]
    return [*dict.fromkeys(name for name in names if name != "mean"), "mean"]


def _best(methods: Sequence[Method]) -> dict[tuple[str, str, str], str]:
    """The best figure as printed, for each group, object and metric with at least two methods."""
    figures: dict[tuple[str, str, str], list[float]] = {}
    for method in methods:
        for name, row in method.means.iterrows():
            for metric in METRICS:
                if pd.notna(row[metric]):
                    figures.setdefault((method.group, str(name), metric), []).append(row[metric])
    return {key: f"{max(values):.1f}" for key, values in figures.items() if len(values) > 1}


def _notes(methods: Sequence[Method]) -> dict[int, tuple[int, str]]:
    """Number and text of each footnote, by the position of its method."""
    noted = [i for i, method in enumerate(methods) if method.note]
    return {
        i: (number, f"{methods[i].title}: {methods[i].note}")
        for number, i in enumerate(noted, start=1)
    }


def _grid(methods: Sequence[Method], style: _Style, objects: Sequence[str]) -> list[list[str]]:
    """The cells with their markup: titles, facts, then one row per object."""
    best, notes = _best(methods), _notes(methods)
    marks = [style.mark(notes[i][0]) if i in notes else "" for i in range(len(methods))]

    def figures(i: int, name: str) -> str:
        method = methods[i]
        if not method.tables:
            return f"-{marks[i]}"
        parts = []
        for metric in METRICS:
            value, spread = (
                frame[metric].get(name, float("nan")) for frame in (method.means, method.spreads)
            )
            text = "-" if pd.isna(value) else f"{value:.1f}"
            is_best = best.get((method.group, name, metric)) == text
            text += "" if pd.isna(spread) else style.text(f" ± {spread:.1f}")
            parts.append(style.bold(text) if is_best else text)
        return "-" if set(parts) == {"-"} else f"({', '.join(parts)})"

    everyone = range(len(methods))
    heads = [
        style.text(m.title) + (mark if m.tables else "")
        for m, mark in zip(methods, marks, strict=True)
    ]
    facts = dict.fromkeys(name for method in methods for name in method.facts)
    return [
        ["", *heads],
        *([style.italic(f), *(style.text(m.facts.get(f, "")) for m in methods)] for f in facts),
        *(
            [style.text(name), *(figures(i, name) for i in everyone)]
            for name in _objects(methods, objects)
        ),
    ]


def _arranged(
    methods: Sequence[Method], style: _Style, layout: Layout, objects: Sequence[str]
) -> list[list[str]]:
    grid = _grid(methods, style, objects)
    grid[0][0] = "object" if layout == "objects" else "method"
    return grid if layout == "objects" else [list(row) for row in zip(*grid, strict=True)]


def markdown(
    methods: Sequence[Method],
    caption: str,
    layout: Layout = "objects",
    objects: Sequence[str] = (),
) -> str:
    """The table, its caption and its footnotes in Markdown, readable in a terminal too.

    Args:
        methods: The columns, or rows.
        caption: The text below.
        layout: The rows: objects or methods.
        objects: The first objects, in this order.
    """
    head, *body = _arranged(methods, MARKDOWN, layout, objects)
    table = pd.DataFrame(body, columns=head)
    align = ("left", *("center" for _ in head[1:]))
    pipes = table.to_markdown(index=False, disable_numparse=True, colalign=align)
    notes = [f"{MARKDOWN.mark(n)} {MARKDOWN.text(t)}" for n, t in _notes(methods).values()]
    return "\n\n".join([pipes, MARKDOWN.text(caption), *notes]) + "\n"


def latex(
    methods: Sequence[Method],
    caption: str,
    label: str,
    layout: Layout = "objects",
    objects: Sequence[str] = (),
) -> str:
    r"""The same as a LaTeX table, with a label; it needs ``\usepackage{booktabs}``."""
    rows = _arranged(methods, LATEX, layout, objects)
    num_facts = len({name for method in methods for name in method.facts})
    last_head = num_facts if layout == "objects" else 0
    lines = []
    for i, row in enumerate(rows):
        lines.append(" & ".join(row) + r" \\")
        is_before_mean = layout == "objects" and i + 2 == len(rows)
        if i == last_head or is_before_mean:
            lines.append(r"\midrule")
    notes = [f"{LATEX.mark(n)} {LATEX.text(t)}" for n, t in _notes(methods).values()]
    below = [r"\par\smallskip\raggedright\footnotesize", r" \\".join(notes)] if notes else []
    return "\n".join(
        [
            r"% needs \usepackage{booktabs}",
            r"\begin{table}[t]",
            r"\centering\small",
            f"\\caption{{{LATEX.text(caption)}}}",
            f"\\label{{{label}}}",
            f"\\begin{{tabular}}{{l*{{{len(rows[0]) - 1}}}{{c}}}}",
            r"\toprule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            *below,
            r"\end{table}",
            "",
        ]
    )


def long_table(methods: Sequence[Method]) -> pd.DataFrame:
    """One row per method and object, for programs."""
    rows = []
    for method in methods:
        about: dict[str, object] = {"method": method.title, **method.facts, "note": method.note}
        if not method.tables:
            rows.append(about)
        for name in method.means.index:
            counts = method.tables[0].loc[name, ["n", "anomalies", "prevalence"]]
            figures = dict(method.means.loc[name])
            spreads = {f"{m}_spread": value for m, value in method.spreads.loc[name].items()}
            row = {**counts, "seeds": len(method.tables), **figures, **spreads}
            rows.append({**about, "object": name, **row})
    first = ["method", "object", "n", "anomalies", "prevalence", "seeds"]
    last = [name for metric in METRICS for name in (metric, f"{metric}_spread")]
    facts = dict.fromkeys(name for method in methods for name in method.facts)
    columns = dict.fromkeys([*first, *last, *facts, "note"])  # each once
    table = pd.DataFrame(rows).reindex(columns=list(columns))
    return table.astype(dict.fromkeys(("n", "anomalies", "seeds"), "Int64"))


def read_published(path: Path) -> list[Method]:
    """Published figures, and the test images that they belong to.

    Args:
        path: CSV with the columns ``title``, ``trained_on``, ``split``, ``object``, ``n``,
            ``anomalies``, ``auroc``, ``aupr``; lines that begin with ``#`` are comments. The row
            ``mean`` of a method is the one that its source prints.

    Raises:
        UserError: If it cannot be read, or is not such a table.
    """
    try:
        rows = pd.read_csv(
            path,
            comment="#",
            dtype=dict.fromkeys(("title", "trained_on", "split", "object"), str),
            keep_default_na=False,
            na_values=dict.fromkeys(("n", "anomalies", *METRICS), ""),
        )
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as a table ({error})") from error
    wanted = ["title", "trained_on", "split", "object", "n", "anomalies", *METRICS]
    if missing := [name for name in wanted if name not in rows]:
        raise UserError(f"{path}: no column {missing[0]!r}; expected {','.join(wanted)}")
    rows["prevalence"] = 100 * rows["anomalies"] / rows["n"]
    methods = []
    for title, part in rows.groupby("title", sort=False):
        table = part.set_index("object")[["n", "anomalies", "prevalence", *METRICS]]
        if "mean" in table.index:
            table.loc["mean", "prevalence"] = table["prevalence"].drop("mean").mean()
        split, trained_on = part["split"].iloc[0], part["trained_on"].iloc[0]
        facts = {
            "trained on": trained_on,
            "test split": split,
            "prevalence": f"{table['prevalence'].iloc[-1]:.1f}",
        }
        methods.append(Method(str(title), [table], facts, group=split))
    return methods
