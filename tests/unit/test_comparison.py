"""Tables of several methods: what is bold, what is missing, what LaTeX needs; published figures."""

import math
import re
from pathlib import Path

import pandas as pd
import pytest

import compare as compare_py
import test as test_py
from jobs.comparing import comparing
from jobs.comparing.table import Method, latex, long_table, markdown, read_published
from options.comparison_file import load_comparison
from utils.errors import UserError

PUBLISHED = Path("docs/published/visa.csv")
FILES = sorted(Path("options/comparison").glob("*.yaml"))
NAN = float("nan")


def table(**figures):
    """``table(candle=(90, 80))``: a result of per_object, mean row included."""
    rows = {name: (10.0, 5.0, 50.0, *map(float, pair)) for name, pair in figures.items()}
    frame = pd.DataFrame.from_dict(
        rows, orient="index", columns=["n", "anomalies", "prevalence", "auroc", "aupr"]
    )
    frame.loc["mean"] = frame.mean()
    return frame


A = Method("A_1", [table(candle=(90, 80.04), pcb1=(70, NAN))], {"trained on": "nothing"})
B = Method("B|2", [table(candle=(95, 80), pcb1=(60, NAN))], {"trained on": "MVTec AD"})
ABSENT = Method("C 100%", [], {"trained on": ""}, note="a_b & c: nothing is trained yet")


def cells(text, row):
    line = next(line for line in text.splitlines() if line.startswith(f"| {row} "))
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[2:-1]]


def test_objects_in_rows_best_in_bold_and_ties_of_what_is_printed_both():
    text = markdown([A, B, ABSENT], "What | where.")
    assert cells(text, "object") == ["A_1", "B\\|2", "C 100%"]
    assert cells(text, "*trained on*") == ["nothing", "MVTec AD", ""]
    assert cells(text, "candle") == ["(90.0, **80.0**)", "(**95.0**, **80.0**)", "-¹"]
    assert cells(text, "pcb1") == ["(**70.0**, -)", "(60.0, -)", "-¹"]
    assert cells(text, "mean") == ["(**80.0**, **80.0**)", "(77.5, **80.0**)", "-¹"]
    assert text.endswith("\n\nWhat \\| where.\n\n¹ C 100%: a_b & c: nothing is trained yet\n")


def test_objects_that_nothing_is_known_about():
    text = markdown([ABSENT], "What.", objects=["candle", "pcb1"])
    assert [cells(text, name) for name in ("candle", "pcb1", "mean")] == [["-¹"]] * 3
    assert latex([ABSENT], "", "tab:x", objects=["candle"]).count("-$^{1}$") == 2


def test_methods_in_rows():
    text = markdown([A, B, ABSENT], "What.", layout="methods")
    assert cells(text, "method") == ["*trained on*", "candle", "pcb1", "mean"]
    assert cells(text, "A_1")[:2] == ["nothing", "(90.0, **80.0**)"]
    assert cells(text, "C 100%") == ["", "-¹", "-¹", "-¹"]


def test_a_single_method_has_nothing_in_bold_and_a_note_marks_its_title():
    noted = Method("A", A.tables, note="unfinished")
    text = markdown([noted], "What.")
    assert "**" not in text
    assert cells(text, "object") == ["A¹"]
    assert "¹ A: unfinished" in text


def test_the_best_is_found_within_a_group():
    oracle = Method("Oracle", [table(candle=(99, 99))], group="oracle")
    assert cells(markdown([A, B, oracle], ""), "candle") == [
        "(90.0, **80.0**)",
        "(**95.0**, **80.0**)",
        "(99.0, 99.0)",
    ]


def test_mean_and_spread_over_seeds():
    seeds = Method("S", [table(a=(90, 1)), table(a=(93, 2)), table(a=(96, 6))])
    one = Method("O", [table(a=(91, 1))])
    text = markdown([seeds, one], "")
    assert cells(text, "a") == ["(**93.0 ± 3.0**, **3.0 ± 2.6**)", "(91.0, 1.0)"]
    assert r"\textbf{93.0 $\pm$ 3.0}" in latex([seeds, one], "", "tab:x")
    row = long_table([seeds]).iloc[0]
    assert (row["seeds"], row["auroc"], row["auroc_spread"]) == (3, 93, 3)
    assert row["aupr_spread"] == pytest.approx(math.sqrt(7))


@pytest.mark.parametrize("layout", ["objects", "methods"])
def test_latex_is_well_formed(layout):
    caption = r"50% of a_b & c#d {e} ~ ^ \ $1 <2> --compare ± 3"
    text = latex([A, B, ABSENT], caption, "tab:x", layout)
    assert r"50\% of a\_b \& c\#d \{e\} \textasciitilde{} \textasciicircum{}" in text
    assert r"\textbackslash{} \$1 $<$2$>$ -{}-compare $\pm$ 3" in text
    assert "A\\_1" in text
    assert r"$^{1}$ C 100\%: a\_b \& c: nothing is trained yet" in text
    rows = [line for line in text.splitlines() if line.endswith(r" \\")]
    assert len(rows) == 5 if layout == "objects" else 4
    columns = int(re.search(r"\\begin{tabular}{l\*{(\d+)}{c}}", text)[1]) + 1
    for row in rows:
        assert len(re.findall(r"(?<!\\)&", row)) == columns - 1
    assert text.count(r"\midrule") == (2 if layout == "objects" else 1)
    bare = re.sub(r"\\[%&#_${}\\]", "", text.split("\n", 1)[1])
    assert bare.count("{") == bare.count("}")
    assert bare.count("$") % 2 == 0
    assert not re.search(r"[%#]|_(?!{)", bare)
    for name in ("table", "tabular"):
        assert text.count(f"\\begin{{{name}}}") == text.count(f"\\end{{{name}}}") == 1


def test_long_table_has_a_row_for_a_method_without_figures():
    rows = long_table([A, ABSENT])
    assert rows["method"].tolist() == ["A_1"] * 3 + ["C 100%"]
    assert rows["object"].tolist()[:3] == ["candle", "pcb1", "mean"]
    assert rows.iloc[3][["object", "auroc"]].isna().all()
    assert rows.iloc[3]["note"] == "a_b & c: nothing is trained yet"
    assert rows["trained on"].tolist() == ["nothing"] * 3 + [""]


def test_long_table_has_each_column_once():
    rows = long_table(read_published(PUBLISHED))
    assert rows.columns.is_unique
    candle = rows.query("method == 'CLIP' and object == 'candle'").iloc[0]
    assert (candle["prevalence"], candle["test split"]) == (50, "1cls")


PRINTED = {  # in the table of the original's README, put right: (AUROC, AUPR)
    "CLIP": (66.4, 71.5),
    "WinCLIP": (78.1, 81.2),
    "VAND": (78.0, 81.4),
    "AnomalyCLIP": (82.1, 85.4),
    "Ours": (96.5, 89.2),
}


def test_published_figures_agree_with_their_printed_means():
    methods = read_published(PUBLISHED)
    assert [method.title for method in methods] == list(PRINTED)
    for method in methods:
        rows = method.tables[0]
        assert len(rows) == 13
        assert tuple(rows.loc["mean", ["auroc", "aupr"]]) == PRINTED[method.title]
        found = rows.drop("mean")[["auroc", "aupr"]].mean()
        # Rows and means are rounded; WinCLIP's AUPR has a mean of 81.0, its source prints 81.2.
        slack = {"auroc": 0.1, "aupr": 0.25 if method.title == "WinCLIP" else 0.1}
        for metric in ("auroc", "aupr"):
            assert rows.loc["mean", metric] == pytest.approx(found[metric], abs=slack[metric])


def test_published_figures_say_where_they_were_taken():
    text = markdown(read_published(PUBLISHED), "")
    assert cells(text, "*test split*") == ["1cls"] * 4 + ["2cls_highshot"]
    assert cells(text, "*prevalence*") == ["56.6"] * 4 + ["12.0"]
    assert cells(text, "mean")[3:] == ["(**82.1**, **85.4**)", "(96.5, 89.2)"]
    counts = {
        m.title: m.tables[0].loc["mean", ["n", "anomalies"]] for m in read_published(PUBLISHED)
    }
    assert tuple(counts["CLIP"]) == (2162, 1200)
    assert tuple(counts["Ours"]) == (4328, 480)


def test_names_are_text_whatever_they_look_like(tmp_path):
    path = tmp_path / "figures.csv"
    path.write_text(
        "title,trained_on,split,object,n,anomalies,auroc,aupr\n"
        "007,,1,01,4,2,50,60\n007,,1,NA,4,2,,\n",
        encoding="utf-8",
    )
    (method,) = read_published(path)
    assert (method.title, method.group, method.facts["trained on"]) == ("007", "1", "")
    assert list(method.tables[0].index) == ["01", "NA"]
    assert math.isnan(method.tables[0].loc["NA", "auroc"])


def test_scores_that_are_used_again_keep_their_names(tmp_path):
    (tmp_path / "about.json").write_text("{}", encoding="utf-8")
    (tmp_path / "scores.csv").write_text(
        "path,object,label,score\n1,01,0,0.1\n2,NA,1,0.5\n", encoding="utf-8"
    )
    found = comparing._earlier(tmp_path, {})
    assert found["path"].tolist() == ["1", "2"]
    assert found["object"].tolist() == ["01", "NA"]
    assert found["score"].tolist() == [0.1, 0.5]


def test_a_published_table_that_is_none(tmp_path):
    path = tmp_path / "x.csv"
    with pytest.raises(UserError, match=r"x\.csv: cannot be read as a table"):
        read_published(path)
    path.write_text("title,split\nA,b\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"x\.csv: no column 'trained_on'; expected title,"):
        read_published(path)


GOOD = """
dir: logs/x
dataset: {name: visa, dir: data/visa, split: 2cls_highshot}
columns:
  ours: {options: options/demo.yaml, overrides: [exp.dir=logs/a b, misc.seed=3]}
  other: {options: options/demo.yaml, stage: teacher, text: oracle}
"""


@pytest.fixture
def good(tmp_path):
    path = tmp_path / "good.yaml"
    path.write_text(GOOD, encoding="utf-8")
    return path


@pytest.mark.parametrize("path", FILES, ids=str)
def test_every_comparison_of_the_repository_loads_and_so_does_what_it_names(path):
    comparison = load_comparison(path)
    for name in comparison.chosen:
        comparison.run_of(name, comparison.misc.seed)
    assert comparison.published is None or comparison.published.is_file()
    head = path.read_text(encoding="utf-8").split("\ntitle")[0]
    assert head.startswith("# ")
    assert f"python compare.py {path}" in head
    assert "# Needs:" in head
    assert "# Result:" in head


def test_a_column_gets_the_images_and_the_seed_of_the_comparison(good):
    comparison = load_comparison(good, ["dataset.objects=[candle]", "misc.seed=5"])
    run = comparison.run_of("ours", 5)
    assert (run.dataset.dir, run.dataset.objects) == (Path("data/visa"), ("candle",))
    assert (run.misc.seed, str(run.exp.dir)) == (5, "logs/a b")
    assert run.dataset.val_fraction == 0.2  # its own
    seeds = load_comparison(good, ["seeds=2"])
    assert [str(seeds.run_of("ours", s).exp.dir) for s in seeds.all_seeds] == [
        "logs/a b/seed_1204",
        "logs/a b/seed_1205",
    ]


def test_the_command_that_trains_a_column_names_what_differs(good):
    comparison = load_comparison(good, ["dataset.objects=[candle, pcb1]", "seeds=3"])
    assert comparison.training_command("ours", 1204) == (
        "options/demo.yaml 'exp.dir=logs/a b' dataset.dir=data/visa "
        "'dataset.objects=[candle, pcb1]' misc.seed=1204 misc.precision=auto --seeds 3"
    )


def test_options_of_all_columns_and_those_of_one(good):
    common = "overrides=[optimizer.lr=1e-4,exp.dir=logs/c,student.objective.kl_weight=2]"
    own = "columns.ours.overrides=[student.objective=cross_entropy,optimizer.lr=1e-3]"
    comparison = load_comparison(good, [common, own])
    run = comparison.run_of("ours", 1204)
    assert run.stages["student"].optimizer.options["lr"] == 1e-3
    assert run.stages["student"].objective.name == "cross_entropy"
    assert str(run.exp.dir) == "logs/c"
    assert comparison.run_of("other", 1204).stages["teacher"].optimizer.options["lr"] == 1e-4
    assert comparison.training_command("ours", 1204) == (
        "options/demo.yaml exp.dir=logs/c student.objective=cross_entropy optimizer.lr=1e-3 "
        "dataset.dir=data/visa misc.precision=auto"
    )
    with pytest.raises(UserError, match=r"optimizer\.momentun=1: optimizer: unknown option"):
        load_comparison(good, ["overrides=[optimizer.momentun=1]"]).run_of("ours", 1204)


def test_cross_validation_has_a_network_for_each_fold(good):
    comparison = load_comparison(good, ["folds=3", "seeds=2", "runs=logs/cv"])
    assert list(comparison.all_folds) == [1, 2, 3]
    run = comparison.run_of("ours", 1205, 2)
    assert (run.dataset.fold, run.misc.seed) == ((2, 3), 1205)
    assert str(run.exp.dir) == "logs/cv/ours/seed_1205/fold_2"
    command = comparison.training_command("ours", 1205, 2)
    assert "'dataset.fold=[2, 3]' misc.seed=1205" in command
    assert command.endswith("exp.dir=logs/cv/ours/seed_1205/fold_2")
    with pytest.raises(UserError, match="folds: write either folds, for all of them, or"):
        load_comparison(good, ["folds=3", "dataset.fold=[1,3]"])
    with pytest.raises(UserError, match=r"folds: must be in \[2, 100\], got 1"):
        load_comparison(good, ["folds=1"])


def test_networks_in_one_folder_and_few_anomalies(good):
    few = ["runs=logs/few", "dataset.max_anomalies=5", "dataset.hold_out=[pcb1]", "seeds=2"]
    comparison = load_comparison(good, few)
    run = comparison.run_of("ours", 1205)
    assert str(run.exp.dir) == "logs/few/ours/seed_1205"
    assert (run.dataset.max_anomalies, run.dataset.hold_out) == (5, ("pcb1",))
    assert comparison.training_command("ours", 1204) == (
        "options/demo.yaml dataset.dir=data/visa dataset.max_anomalies=5 'dataset.hold_out=[pcb1]' "
        "misc.seed=1204 misc.precision=auto exp.dir=logs/few/ours --seeds 2"
    )
    with pytest.raises(UserError, match="dataset: hold_out_anomalies: write hold_out"):
        load_comparison(good, ["dataset.hold_out_anomalies=5"])
    own = 'columns.ours.overrides=["dataset.hold_out=[pcb2]"]'
    with pytest.raises(UserError, match="write it into dataset of the comparison"):
        load_comparison(good, [own]).run_of("ours", 1204)


def test_a_suggested_command_spells_null_as_yaml_does(good):
    other = 'columns.ours.overrides=["dataset={name: meta, dir: data, file: a.json}"]'
    comparison = load_comparison(good, ["dataset={name: meta, dir: data}", other])
    assert "dataset.file=null" in comparison.training_command("ours", 1204)


def test_two_kinds_of_files_are_told_apart(good, capsys):
    for program, arguments in ((test_py, [str(good)]), (test_py, ["--compare", str(good)])):
        assert program.main(arguments) == 2
        assert capsys.readouterr().err == (
            f"{good}: is a comparison: python compare.py {good}; --train trains its methods first\n"
        )
    assert compare_py.main(["options/demo.yaml"]) == 2
    assert capsys.readouterr().err == (
        "options/demo.yaml: is an experiment, not a comparison: python test.py options/demo.yaml\n"
    )


def test_a_column_can_be_left_out(good):
    assert list(load_comparison(good, ["columns.other=null"]).chosen) == ["ours"]


def test_a_stage_that_is_not_there(good):
    comparison = load_comparison(good, ["columns.ours.stage=baseline"])
    with pytest.raises(UserError, match=r"demo\.yaml: has no stage baseline; it has teacher and"):
        comparison.run_of("ours", 0)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("dir: logs/x", "dri: logs/x", "2: unknown option 'dri'; did you mean 'dir'?"),
        ("text: oracle", "txt: oracle", "6: columns.other: unknown option 'txt'; did you mean"),
        (
            "text: oracle",
            "text: all",
            "6: columns.other.text: unknown 'all'; known: object, oracle",
        ),
        (
            "stage: teacher",
            "stage: techer",
            "6: columns.other.stage: unknown 'techer'; did you mean",
        ),
        (
            "overrides: [exp.dir=logs/a b",
            "overrides: [[a]",
            "5: columns.ours.overrides: a list may",
        ),
        ("name: visa", "name: vsia", "3: dataset.name: unknown 'vsia'; did you mean 'visa'?"),
        ("split: 2cls_highshot", "val_fraction: 0.1", "3: dataset: unknown option 'val_fraction'"),
        ("dir: logs/x", "dir: logs/x\nseeds: 0", "3: seeds: must be in [1, 1000], got 0"),
        ("  other:", "  ../other:", "2: columns: '../other' must be at most 100 letters"),
        (
            "options: options/demo.yaml, stage",
            "stage",
            "6: columns.other: missing option 'options'",
        ),
        ("dir: logs/x", "dir: logs/x\nlr: 3", "3: unknown option 'lr'; known: against, columns"),
    ],
)
def test_mistakes_have_a_file_and_a_line(good, old, new, said):
    assert old in GOOD
    good.write_text(GOOD.replace(old, new), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load_comparison(good)
    assert f"{good}:{said}" in str(caught.value)


def test_columns_that_are_not_there(good):
    with pytest.raises(UserError, match=r"good\.yaml:2: columns: there is no column to score"):
        load_comparison(good, ["columns.ours=null", "columns.other=null"])
    with pytest.raises(UserError, match="against: there is no column 'othr'; did you mean 'other'"):
        load_comparison(good, ["against=othr"])
