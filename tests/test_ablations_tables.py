"""ablations/paper.py and tables.py: the paper's averages, and what may stand in which cell."""

import importlib
import json
import os
import sys

import numpy as np
import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "ablations"))
import paper
import tables
from experiment import main

import offline_tasks
import report

USUAL = "defaults"  # in the column of settings
HOPPER, CHEETAH = "hopper-medium-expert-v2", "halfcheetah-medium-expert-v2"
PRINTED = {
    1: (paper.TABLE_1, paper.TABLE_1_AVERAGES),
    2: (paper.TABLE_2, paper.TABLE_2_AVERAGES),
    5: (paper.TABLE_5, paper.TABLE_5_AVERAGES),
}


def results(
    score=None, algorithm="gtp_offline", env_id=HOPPER, seed=0, sha256=None, args=(), **top
):
    """What a run of a script with its defaults and `args` writes; sha256 None: D4RL's own file."""
    path, _, published = offline_tasks.DATASETS.get(env_id, ("toy.npz", 0, "c" * 64))
    row = {"update": 20, "normalized_score": score, "energy_score": 0.3}
    own = {"seed": seed, "dataset_path": "", "run_dir": f"somewhere/{seed}"}
    return {
        "algorithm": algorithm, "env_id": env_id, "seed": seed, "num_updates": 20, "update": 20,
        "dataset": {"path": f"/data/{path.split('/')[-1]}", "sha256": sha256 or published,
                    "transitions": 99},
        "args": report.defaults(algorithm, env_id or "", False) | own | dict(args),
        "evaluations": [row | {"update": 10, "normalized_score": score and score + 5}, row],
        "last": row, "best": row | {"normalized_score": score and score + 5},
        "status": "finished", "seconds": 7200.0, "milliseconds_per_action": 0.5,
    } | top  # fmt: skip


def variant(title, script=None):
    """What a run of an ablation says of itself."""
    if script is None:
        script = "linear_q" if title.startswith("linear") else "ode_solver"
    found = importlib.import_module(script).variants()[title]
    return {"variant": title, "table": found.table, "row": found.row}


def save(folder, *runs) -> None:
    """Each of the runs in a folder of its own."""
    for results in runs:
        run_dir = folder / f"run{len([*folder.glob('run*')])}"
        run_dir.mkdir(parents=True)
        (run_dir / "results.json").write_text(json.dumps(results))


def rows_of(text: str) -> dict[str, list[dict[str, str]]]:
    """{heading: rows as {column: cell}} of Markdown."""
    found = {}
    for part in text.split("## ")[1:]:
        lines = [line for line in part.splitlines() if line.startswith("| ")]
        heads, _, *rows = (line.strip("| ").split(" | ") for line in lines)
        found[part.splitlines()[0]] = [dict(zip(heads, row, strict=True)) for row in rows]
    return found


def tabulate(folder, *runs, pick="last") -> dict[str, list[dict[str, str]]]:
    """The tables of the runs."""
    save(folder, *runs)
    return rows_of(tables.document(*tables.group(tables.load([folder]), pick), pick))


# ---- paper.py ----------------------------------------------------------------------------------


def test_printed_averages_are_those_of_the_columns_but_for_one():
    """Table 1, Gym, D-BC: printed 76.3, its nine scores have the mean 76.19."""
    differ, incomplete = [], []
    for table, (rows, averages) in PRINTED.items():
        for suite, printed in averages.items():
            for method, text in printed.items():
                column = [rows[task][method] for task in paper.SUITES[suite].values()]
                if "-" in column:
                    incomplete.append((table, suite, method, text))
                    continue
                mean = np.mean([float(score.split(" ± ")[0]) for score in column])
                if abs(mean - float(text)) > 0.05 + 1e-9:  # either neighbour of a half is right
                    differ.append((table, suite, method, text, round(float(mean), 2)))
    assert differ == [(1, "Gym", "D-BC", "76.3", 76.19)]
    assert incomplete == [(2, "AntMaze", "BDM", "-"), (2, "AntMaze", "C-AC", "-")]


def test_paper_tables_are_whole_and_agree_with_each_other_and_with_the_text():
    for table, (rows, _) in PRINTED.items():
        suites = ("Gym", "AntMaze")[: 1 if table == 5 else 2]
        assert [*rows] == [task for suite in suites for task in paper.SUITES[suite].values()]
        assert len({tuple(row) for row in rows.values()}) == 1
    for task, row in paper.TABLE_5.items():  # all columns but the last are printed twice
        names = {"GTP (T=5)": "GTP"}
        twice = {k: paper.TABLE_2[task][names.get(k, k)] for k in row if k != "GTP (T=2)"}
        assert row == twice | {"GTP (T=2)": row["GTP (T=2)"]}
    value = lambda text: float(text.split(" ± ")[0])  # noqa: E731
    best = [max(row, key=lambda k: value(row[k])) for row in paper.TABLE_1.values()]
    assert best.count("GTP-BC") == 11  # "in 11 out of 15 tasks"
    assert paper.TABLE_3["GTP"] == paper.TABLE_2[HOPPER]["GTP"] == "112.2 ± 0.6"
    assert paper.TABLE_3.keys() == paper.TABLE_3_HOURS.keys()
    assert {*paper.TABLE_7.values()} == {"-"}  # its body is not known
    assert {*paper.TABLE_2} <= {*offline_tasks.DATASETS}


# ---- one cell ----------------------------------------------------------------------------------


def test_mean_and_standard_deviation_beside_the_papers_number(tmp_path):
    """90, 100, 110: mean 100, squares of the deviations 100, 0, 100, so sqrt(200 / 3) = 8.16.
    Three are too few to trim, and a resample has the mean 90 in 1 of 27 cases: above 2.5 %."""
    found = tabulate(tmp_path, *(results(90 + 10 * i, seed=i) for i in range(3)))
    assert [*found] == ["Table 2: offline RL", "Table 5: steps of the sampler"]
    (row,) = found["Table 2: offline RL"]
    assert row == {"task": HOPPER, "method": "GTP", "score": "100.0 ± 8.2",
        "IQM": "100.0 [90.0, 110.0]",
        "seeds": "0, 1, 2", "paper": "112.2 ± 0.6", "settings": USUAL}  # fmt: skip
    (row,) = found["Table 5: steps of the sampler"]
    assert row["method"] == "GTP (T = 5)" and row["paper"] == "112.2 ± 0.6"


def test_one_seed_has_no_deviation_and_best_is_another_number(tmp_path):
    (row,) = tabulate(tmp_path, results(90.0), pick="best")["Table 2: offline RL"]
    assert (row["score"], row["IQM"]) == ("95.0", "-")


def test_interquartile_mean_of_four_scores(tmp_path):
    """Of 0, 10, 20, 100 the outer quarters are 0 and 100; what is left has the mean 15."""
    estimate, low, high = report.iqm([[0.0], [10.0], [20.0], [100.0]])
    assert estimate == 15
    assert 0 <= low < 15 < high <= 100
    assert report.iqm([[0.0], [10.0], [20.0], [100.0]]) == [estimate, low, high]  # repeatable
    runs = [results(score, seed=i) for i, score in enumerate((0, 10, 20, 100))]
    (row,) = tabulate(tmp_path, *runs)["Table 2: offline RL"]
    assert row["IQM"] == f"15.0 [{low:.1f}, {high:.1f}]"


def test_an_average_is_over_the_seeds_that_all_tasks_have(tmp_path):
    """Scores 10 i + s of task i and seed s, 0 to 81: the four smallest and largest of 18 go, and
    the mean is that of all, 40.5; so is the score. Without a seed in common there is none."""
    gym = paper.SUITES["Gym"].values()
    runs = [results(10 * i + s, env_id=task, seed=s) for i, task in enumerate(gym) for s in (0, 1)]
    runs.append(results(7, env_id=next(iter(gym)), seed=5))  # no such seed in the other tasks
    average = tabulate(tmp_path, *runs)["Table 2: offline RL"][-1]
    assert average["seeds"] == "0, 1"
    assert average["IQM"] == "40.5"  # two seeds: without an interval
    assert average["score"] == "40.5"
    runs = [results(10, env_id=task, seed=i) for i, task in enumerate(gym)]
    average = tabulate(tmp_path / "apart", *runs)["Table 2: offline RL"][-1]
    assert (average["seeds"], average["score"], average["IQM"]) == ("-", "-", "-")


# ---- what may not be mixed ---------------------------------------------------------------------


def test_stand_in_data_never_fill_a_cell_of_d4rl(tmp_path):
    """Under D4RL's own file name and size, too: the SHA-256 decides."""
    other = [results(50 + i, seed=i, sha256="a" * 64) for i in range(2)]
    found = tabulate(tmp_path, *other, results(100, seed=0), results(110, seed=1))
    (row,) = found["Table 2: offline RL"]
    assert row["score"] == "105.0 ± 5.0"
    name = f"Other runs on hopper_medium_expert-v2.hdf5 (not D4RL's, SHA-256 {'a' * 12})"
    (row,) = found[name]
    assert row["score"] == "50.5 ± 0.5" and "paper" not in row


def test_stand_in_data_alone_show_none_of_the_papers_numbers(tmp_path):
    save(tmp_path, results(50, sha256="a" * 64), results(40, env_id=CHEETAH, sha256="b" * 64))
    text = tables.document(*tables.group(tables.load([tmp_path]), "last"), "last")
    assert [*rows_of(text)] and all(head.startswith("Other runs on") for head in rows_of(text))
    assert "112.2" not in text and "0.94" not in text and "paper" not in text
    assert "no runs for Table 1, 2, 3, 5, 6, 7" in text


def test_a_d4rl_file_of_another_task_is_not_this_task(tmp_path):
    sha256 = offline_tasks.DATASETS["hopper-medium-v2"][2]
    (head,) = tabulate(tmp_path, results(50, sha256=sha256))
    assert head.startswith("Other runs on") and "D4RL's hopper-medium-v2" in head


def test_scores_of_different_benchmarks_share_no_table(tmp_path):
    """Also where the runs were on the same file."""
    ids = ("mujoco/hopper/medium-v0", "hopper-medium-v2", "pointmaze-large-v0", "Hopper-v5")
    ids += ("pointmaze-large-navigate-singletask-v0",)
    found = tabulate(tmp_path, *[results(50, env_id=task, sha256="a" * 64) for task in ids])
    assert sorted(row["task"] for rows in found.values() for row in rows) == sorted(ids)
    assert len(found) == 5 and sum("scores of Minari" in head for head in found) == 1
    assert sum("scores of OGBench" in head for head in found) == 1


@pytest.mark.parametrize(
    "changed", [{"num_updates": 300}, {"hidden_dim": 64}, {"fix_timeouts": True}, {"brand_new": 1}]
)
def test_other_settings_are_another_row(tmp_path, changed):
    found = tabulate(tmp_path, results(100, seed=0), results(50, seed=1, args=changed))
    rows = found["Table 2: offline RL"]
    ((key, value),) = changed.items()
    assert sorted((r["score"], r["seeds"], r["settings"]) for r in rows) == [
        ("100.0", "0", USUAL), ("50.0", "1", f"{key}={value}")]  # fmt: skip


def test_other_variants_algorithms_and_temperatures_are_other_rows(tmp_path):
    found = tabulate(tmp_path, results(1), results(2, args={"eta": 3.0}),
        results(3, **variant("Heun, 3 steps")), results(4, algorithm="diffusion_ql"))  # fmt: skip
    rows = found["Table 2: offline RL"]
    assert [(r["method"], r["score"], r["paper"]) for r in rows] == [
        ("D-QL, 50 candidates", "4.0", "111.1"), ("GTP", "1.0", "112.2 ± 0.6")]  # fmt: skip
    (head,) = (head for head in found if head.startswith("Other"))
    assert "D4RL's hopper-medium-expert-v2" in head
    (row,) = found[head]
    assert (row["score"], row["settings"]) == ("2.0", "eta=3.0")


def test_where_a_run_ran_is_no_setting_and_the_same_seed_counts_once(tmp_path, capsys):
    elsewhere = {"device": "cuda", "num_threads": 8, "compile": True, "dataset_path": "/x.hdf5"}
    runs = results(90, seed=0), results(110, seed=1, args=elsewhere), results(70, seed=1)
    save(tmp_path, *runs)
    for i in range(3):
        os.utime(tmp_path / f"run{i}" / "results.json", (i, i))
    again = tmp_path / "run2" / ".." / "run0" / "results.json"  # a file, not a run, given twice
    (row,), _ = tables.group(tables.load([tmp_path, again]), "last")
    assert row.scores == {0: 90.0, 1: 70.0}
    (warning,) = capsys.readouterr().err.splitlines()
    assert "run1/results.json is left out" in warning


def test_times_of_different_machines_are_not_averaged(tmp_path):
    fast = {"device": "cuda"}
    runs = [results(1, seed=i, env_id=CHEETAH) for i in range(2)]
    runs += [results(1, seed=2, env_id=CHEETAH, args=fast, machine="H100",
        milliseconds_per_action=0.1)]  # fmt: skip
    (row,) = tabulate(tmp_path, *runs)["Table 6: halfcheetah-medium-expert-v2"]
    assert row["ms per action"] == "0.50 ± 0.00 (cpu, num_threads=1); 0.10 (H100)"
    assert (row["method"], row["paper"]) == ("GTP (T = 5)", "0.94")


# ---- the tables --------------------------------------------------------------------------------


def test_table_1_names_the_choosing_critic(tmp_path):
    bc = {"eta": 0.0}
    found = tabulate(tmp_path, results(1, "gtp_bc"), results(2, args=bc),
        results(3, args=bc | {"num_candidates": 50}), results(4, "diffusion_ql", args=bc),
        results(5, "consistency_ac", args=bc | {"num_candidates": 1}))  # fmt: skip
    rows = found["Table 1: behaviour cloning (eta = 0)"]
    assert [(r["method"], r["score"], r["paper"], r["settings"]) for r in rows] == [
        ("C-BC", "5.0", "90.6", "num_candidates=1"), ("D-BC, 50 candidates", "4.0", "107.6", USUAL),
        ("GTP-BC", "1.0", "109.6 ± 1.9", USUAL),
        ("GTP-BC (gtp_offline.py)", "2.0", "109.6 ± 1.9", USUAL),
        ("GTP-BC (gtp_offline.py), 50 candidates", "3.0", "109.6 ± 1.9", USUAL)]  # fmt: skip


def test_table_3_reports_divergence_as_the_paper_does(tmp_path):
    gone = {"status": "diverged", "last": None, "best": None, "evaluations": [], "seconds": 60}
    found = tabulate(tmp_path, results(112),
        results(99, **variant("Heun, 3 steps")), results(98, **variant("Euler, 1 step")),
        results(**variant("linear Q, lambda = 1.0"), **gone),
        results(50, **variant("linear Q, lambda = 0.1")),
        results(**variant("linear Q, lambda = 0.1"), seed=1, **gone))  # fmt: skip
    rows = found["Table 3: hopper-medium-expert-v2"]
    assert [(*r.values(),) for r in rows] == [
        ("Euler, 1 step", "2.00 (cpu, num_threads=1)", "98.0", "-", "0", "-", "-", USUAL),
        ("GTP (gtp_offline.py)", "2.00 (cpu, num_threads=1)", "112.0", "-", "0", "4.26",
            "112.2 ± 0.6", USUAL),
        ("Heun, 3 steps", "2.00 (cpu, num_threads=1)", "99.0", "-", "0", "5.23",
            "99.7 ± 1.7", USUAL),
        ("linear Q, lambda = 0.1", "2.00 (cpu, num_threads=1)", "50.0 (1 of 2 diverged)", "-",
            "0, 1", "Diverged", "-", USUAL),
        ("linear Q, lambda = 1.0", "Diverged", "-", "-", "0", "Diverged", "-", USUAL),
    ]  # fmt: skip


def test_runs_of_the_comparison_of_lengths_stand_in_table_5_alone(tmp_path):
    horizon = importlib.import_module("horizon")
    variants = horizon.variants(retrain=True)
    runs = []
    for k in (2, 5):
        title = horizon.TITLES[k]
        about = {"variant": title, "table": 5, "row": variants[title].row}
        runs.append(results(k, args={"num_steps": k}, **about))
    (table,) = tabulate(tmp_path, *runs).values()
    assert [(r["method"], r["score"], r["paper"]) for r in table] == [
        ("trained with K = 2 (T = 2)", "2.0", "111.7 ± 0.6"),
        ("trained with K = 5 (T = 5)", "5.0", "112.2 ± 0.6")]  # fmt: skip


def test_a_variant_with_another_temperature_is_not_the_papers(tmp_path):
    run = results(9, **variant("GTP", "linear_q"), args={"eta": 0.0})
    found = tabulate(tmp_path, run)
    assert [head.split(" on ")[0] for head in found] == ["Other runs"]


def test_table_5_has_two_lengths_and_other_lengths_stand_apart(tmp_path):
    found = tabulate(tmp_path, *(results(k, args={"num_steps": k}) for k in (2, 3, 5)))
    rows = found["Table 5: steps of the sampler"]
    assert [(r["method"], r["score"], r["paper"], r["settings"]) for r in rows] == [
        ("GTP (T = 5)", "5.0", "112.2 ± 0.6", USUAL),
        ("GTP (T = 2)", "2.0", "111.7 ± 0.6", USUAL)]  # fmt: skip
    (head,) = (head for head in found if head.startswith("Other"))
    assert [row["settings"] for row in found[head]] == ["num_steps=3"]
    assert len(found["Table 2: offline RL"]) == 1


@pytest.mark.parametrize("script, table", [
    ("ode_solver", 3), ("linear_q", 3), ("shortcut", 7), ("meanflow", 7)])  # fmt: skip
def test_every_variant_of_the_scripts_has_its_table(tmp_path, script, table):
    titles = [*importlib.import_module(script).variants()]
    found = tabulate(tmp_path, *(results(1, **variant(title, script)) for title in titles))
    (head,) = (head for head in found if head.startswith(f"Table {table}:"))
    assert [row["method"] for row in found[head]] == sorted(titles)


def test_averages_need_every_task_of_a_suite(tmp_path):
    antmaze = [*paper.SUITES["AntMaze"].values()]
    runs = [results(10 * i, env_id=task) for i, task in enumerate(antmaze)]
    found = tabulate(tmp_path / "five", *runs[:5])["Table 2: offline RL"]
    assert [row["task"] for row in found] == antmaze[:5]
    found = tabulate(tmp_path / "six", *runs)["Table 2: offline RL"]
    average = {"task": "average, AntMaze", "score": "25.0", "paper": "80.6", "seeds": "0"}
    assert found[-1].items() >= average.items()  # (0 + 10 + 20 + 30 + 40 + 50) / 6
    runs[2]["args"]["hidden_dim"] = 64  # another method, so to say
    found = tabulate(tmp_path / "mixed", *runs)["Table 2: offline RL"]
    assert [row["task"] for row in found] == antmaze


def test_without_any_ended_run_the_way_on_is_said(tmp_path):
    save(tmp_path, results(1, status="interrupted", command="python x.py"))
    said = r"no run has ended: \S+results.json \(no checkpoint, start again: `python x.py`\)$"
    with pytest.raises(ValueError, match=said):
        tables.run(tables.Arguments(results=(str(tmp_path),)))


# ---- odd files ---------------------------------------------------------------------------------


def test_unknown_keys_null_and_the_text_inf(tmp_path):
    """--literal has max_weight inf, which results.json holds as text; NaN is null."""
    args = report.defaults("gtp_offline", HOPPER, True)
    assert args["max_weight"] == "inf"
    run = results(None, args=args, later_key={"a": 1}) | {"seconds": "inf"}
    found = tabulate(tmp_path, run)
    (row,) = found["Table 2: offline RL"]
    assert (row["score"], row["settings"]) == ("-", "literal=True")
    for value in ("inf", None, True, float("nan"), float("inf"), [1]):
        assert report.number(value) is None
    assert report.number(0) == 0.0


def test_unended_runs_are_named_not_counted(tmp_path):
    save(tmp_path, results(100), results(0, seed=1, status="interrupted", update=7))
    text = tables.document(*tables.group(tables.load([tmp_path]), "last"), "last")
    assert "run1/results.json (interrupted, update 7 of 20)" in text
    assert rows_of(text)["Table 2: offline RL"][0]["score"] == "100.0"


@pytest.mark.parametrize("content", [
    b"{", b"\xff\xfe", b"[]", b"3", b"{}", b"[" * 10**5,
    json.dumps(results(1) | {"algorithm": "dreamer"}).encode(),
    json.dumps(results(1) | {"algorithm": ["gtp_bc"]}).encode(),
    json.dumps(results(1) | {"dataset": None}).encode(),
    json.dumps(results(1) | {"dataset": {"path": "x"}}).encode(),
    json.dumps(results(1) | {"evaluations": [3]}).encode(),
    json.dumps(results(1) | {"last": 3}).encode(), json.dumps(results(1) | {"args": 3}).encode(),
])  # fmt: skip
def test_a_bad_file_is_one_warning_and_the_others_count(tmp_path, capsys, content):
    save(tmp_path, results(100))
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "results.json").write_bytes(content)
    assert main(tables.run, tables.Arguments, [str(tmp_path)]) == 0
    shown = capsys.readouterr()
    assert len(shown.err.splitlines()) == 1 and "foreign/results.json is left out" in shown.err
    assert "| 100.0 |" in shown.out


def test_nothing_to_tabulate_is_an_error_with_a_remedy(tmp_path, capsys):
    """Exit code 2 for a wrong argument, as of report.py."""
    absent = tmp_path / "absent"
    for path, code, words in ((tmp_path, 1, "train first"), (absent, 2, "does not exist")):
        assert main(tables.run, tables.Arguments, [str(path)]) == code
        error = capsys.readouterr().err
        assert error.startswith("error: ") and words in error and str(path) in error
    save(tmp_path, results(1, status="running"))
    (tmp_path / "run0" / "checkpoint.pt").touch()
    assert main(tables.run, tables.Arguments, [str(tmp_path)]) == 1
    assert "--resume" in capsys.readouterr().err


# ---- the script --------------------------------------------------------------------------------


def test_files_and_curves(tmp_path, capsys):
    """One picture for each task and data; Markdown and numbers in files."""
    runs = [results(90 + i, seed=i) for i in range(2)] + [results(7, sha256="a" * 64)]
    save(tmp_path / "runs", *runs, results(1, algorithm="gtp_bc", env_id=None, seed=1))
    out = tmp_path / "new" / "t.md"
    arguments = [str(tmp_path / "runs"), "--out", str(out), "--curves"]
    assert main(tables.run, tables.Arguments, arguments) == 0
    text = out.read_text()
    assert text in capsys.readouterr().out and "scores of" not in text
    about = json.loads((out.parent / "tables.json").read_text())
    genuine = next(row for row in about["rows"] if row["d4rl"])
    assert genuine["scores"] == {"0": 90, "1": 91} and genuine["tables"] == [2, 5, 3, 7]
    names = sorted(path.name for path in out.parent.iterdir())
    sha256 = offline_tasks.DATASETS[HOPPER][2][:8]
    assert names == sorted([
        f"curves__{HOPPER}__{sha256}.png", f"curves__{HOPPER}__aaaaaaaa.png",
        "curves__toy.npz__cccccccc.png", "t.md", "tables.json"])  # fmt: skip
    assert all(p.read_bytes()[:4] == b"\x89PNG" for p in out.parent.glob("*.png"))


def test_curves_show_mean_and_deviation_at_common_updates(tmp_path, monkeypatch):
    """0 and 10 after 10 updates, 20 and 40 after 20; one run alone has an evaluation at 30."""
    from matplotlib.axes import Axes

    lines, bands = [], []
    plot, fill = Axes.plot, Axes.fill_between
    monkeypatch.setattr(Axes, "plot", lambda s, *a, **k: lines.append(a) or plot(s, *a, **k))
    monkeypatch.setattr(
        Axes, "fill_between", lambda s, *a, **k: bands.append(a) or fill(s, *a, **k)
    )
    scores = ({10: 0, 20: 20, 30: 99}, {10: 10, 20: 40, 30: None})
    for seed, values in enumerate(scores):
        rows = [{"update": u, "normalized_score": v} for u, v in values.items()]
        save(tmp_path, results(1, seed=seed, evaluations=rows))
    tables.draw_curves(tables.group(tables.load([tmp_path]), "last")[0], tmp_path)
    ((updates, mean),), ((_, low, high),) = lines, bands
    assert updates == [10, 20] and mean.tolist() == [5, 30]
    assert low.tolist() == [0, 20] and high.tolist() == [10, 40]


def test_quick(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(offline_tasks, "plot_run", lambda *args: None)
    out = tmp_path / "tables.md"
    assert main(tables.run, tables.Arguments, ["--quick", "--out", str(out)]) == 0
    ((head, (row,)),) = rows_of(out.read_text()).items()
    assert head.startswith("Other runs on random.npz (not D4RL's") and row["seeds"] == "0, 1"
    assert "num_updates=60" in row["settings"] and "±" in row["energy score"]


def test_a_finished_run_without_a_score_is_counted(tmp_path):
    """The mean of 90 and 100 is of two of the three seeds."""
    last = {"update": 20, "normalized_score": None, "energy_score": 0.3}
    found = tabulate(tmp_path, results(90), results(95, seed=1, last=last), results(100, seed=2))
    (row,) = found["Table 2: offline RL"]
    assert row["score"] == "95.0 ± 5.0 (1 of 3 without a score)"


# ---- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--out", "m"], "--out m: name a Markdown file, tables.md say"),
        (["--out", "results.json"], "--out results.json: name a Markdown file, tables.md say"),
        (
            ["--out", "m/checkpoint.pt"],
            "--out m/checkpoint.pt: name a Markdown file, tables.md say",
        ),
        (["--out", "."], "--out .: name a Markdown file, tables.md say"),
        (["--out", "file/t.md"], "is no folder; name a folder"),
        (["/nope", "--quick"], "--quick tabulates runs of its own; leave out /nope, or --quick"),
    ],
)
def test_bad_options_are_one_line_and_nothing_is_read_or_written(
    argv, words, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tables, "read_rows", lambda options: pytest.fail("read"))
    (tmp_path / "m").mkdir()
    for name in ("file", "results.json"):
        (tmp_path / name).write_text("kept")
    assert main(tables.run, tables.Arguments, argv) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and words in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "m", "results.json"]
    assert all((tmp_path / name).read_text() == "kept" for name in ("file", "results.json"))
