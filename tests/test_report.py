"""report.py: numbers of known scores by hand, what stands where, what is left out and named."""

import json
import os
import re
import time
from html.parser import HTMLParser

import pytest
from test_ablations_tables import CHEETAH, HOPPER, results, save

import offline_tasks
import report
from offline_tasks import pages
from sweeps import progress
from sweeps.reader import read_sweep

OTHER = "a" * 64


class Reader(HTMLParser):
    """{id of a page: rows of texts of its tables}, the words of each page, and all links."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.words, self.links, self.page, self.cell = {}, {}, [], "", None
        self.feed(text)

    def handle_starttag(self, tag, given):
        given = dict(given)
        self.links += [given[key] for key in ("src", "href") if key in given]
        if given.get("class") == "page":
            self.page = given["id"]
            self.rows[self.page] = []
        elif tag == "tr":
            self.rows[self.page].append([])
        elif tag in ("td", "th"):
            self.rows[self.page][-1].append("")
            self.cell = self.rows[self.page][-1]
        elif tag == "small" and self.cell is not None:
            self.cell[-1] += "\n"

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.cell = None

    def handle_data(self, data):
        self.words[self.page] = self.words.get(self.page, "") + data
        if self.cell is not None:
            self.cell[-1] += data


@pytest.fixture
def plain(monkeypatch):
    """Without drawing, which takes a second."""
    monkeypatch.setattr(report, "svg", lambda figure: b"<svg/>")


def make(tmp_path, *runs, pick="last"):
    """The report of some runs: its Markdown and its HTML."""
    save(tmp_path / "runs", *runs)
    out = tmp_path / "out"
    assert report.main([str(tmp_path / "runs"), "--out", str(out), "--pick", pick]) == 0
    return (out / "report.md").read_text(), Reader((out / "index.html").read_text())


def cells(rows, *first):
    """The rest of the first row that begins so, small print apart."""
    short = [[cell.partition("\n")[0] for cell in row] for row in rows]
    return next(row[len(first) :] for row in short if row[: len(first)] == [*first])


# ---- known scores --------------------------------------------------------------------------------

KNOWN = {  # method: {task: scores of seeds 0, 1, ...}
    "gtp_offline": {HOPPER: (90, 100, 110), CHEETAH: (50, 60, 70)},
    "gtp_bc": {HOPPER: (80, 95, 95), CHEETAH: (50, 50, 50)},
}


def known_runs():
    return [
        results(score, algorithm, task, seed)
        for algorithm, by_task in KNOWN.items()
        for task, scores in by_task.items()
        for seed, score in enumerate(scores)
    ]


def test_means_and_deviations_beside_the_papers_numbers(tmp_path, plain):
    """sqrt(200 / 3) = 8.16 and, of 80, 95, 95 with mean 90, sqrt((100 + 25 + 25) / 3) = 7.07; the
    best evaluation of a made run is 5 above its last."""
    _, page = make(tmp_path, *known_runs())
    rows = page.rows["d4rl"]
    assert rows[0] == ["method", "seeds", "last", "best", "paper"]
    hopper = rows[rows.index([HOPPER]) + 1 :][:2]
    assert hopper == [
        ["GTP", "0, 1, 2", "100.0 ± 8.2", "105.0 ± 8.2", "112.2 ± 0.6 (Table 2)"],
        ["GTP-BC", "0, 1, 2", "90.0 ± 7.1", "95.0 ± 7.1", "109.6 ± 1.9 (Table 1)"],
    ]
    cheetah = rows[rows.index([CHEETAH]) + 1 :][:2]
    assert cheetah == [
        ["GTP", "0, 1, 2", "60.0 ± 8.2", "65.0 ± 8.2", "93.8 ± 0.8 (Table 2)"],
        ["GTP-BC", "0, 1, 2", "50.0 ± 0.0", "55.0 ± 0.0", "91.3 ± 0.5 (Table 1)"],
    ]


def test_the_interquartile_mean_and_the_probability_of_improvement(tmp_path, plain):
    """Of GTP's 50, 60, 70, 90, 100, 110 one at each end goes: mean of 60, 70, 90, 100 = 80; of
    GTP-BC's 50, 50, 50, 80, 95, 95 the mean of 50, 50, 80, 95 = 68.75. Hopper: GTP wins 1 + 3 + 3
    of 9 pairs, halfcheetah: 6 and 3 ties, so (7/9 + 7.5/9) / 2 = 0.806."""
    text, page = make(tmp_path, *known_runs())
    rows = page.rows["d4rl"]
    (iqm,) = cells(rows, "GTP", "2", "6")
    assert re.fullmatch(r"80\.0 \[\d\d\.\d, \d\d\.\d\]", iqm)
    low, high = map(float, re.findall(r"[\d.]+", iqm)[1:])
    assert 65 < low < 80 < high < 95
    assert cells(rows, "GTP-BC", "2", "6")[0].startswith("68.8 [")
    assert cells(rows, "GTP", "GTP-BC", "2")[0].startswith("0.81 [")
    assert "| GTP | GTP-BC | 2 | 0.81 [" in text


@pytest.mark.parametrize("count", [2, 3])
def test_intervals_are_of_three_runs_at_least(tmp_path, monkeypatch, count):
    """Of two runs a bootstrap gives the two themselves; the page says why there is none."""
    bands = []
    monkeypatch.setattr(report, "svg", lambda figure: b"<svg/>")
    monkeypatch.setattr(report, "draw_line", lambda *given: bands.append(given[-1]))
    seeds = range(count)
    runs = [results(90 + seed, seed=seed) for seed in seeds]
    runs += [results(80 - seed, "gtp_bc", seed=seed) for seed in seeds]
    text, page = make(tmp_path, *runs)
    rows = page.rows["d4rl"]
    shown = [*cells(rows, "GTP", "1"), *cells(rows, "GTP", "GTP-BC", "1")]
    banded = [band is not None for band in bands[:2]]  # of the performance profiles
    if count == 2:
        assert shown == ["2", "90.5", "1.00"]
        assert banded == [False, False]
    else:
        assert shown == ["3", "91.0 [90.0, 92.0]", "1.00 [1.00, 1.00]"]
        assert banded == [True, True]
    assert "none where a task has fewer than three runs" in text
    assert "of fewer than four scores, their mean" in text


@pytest.mark.parametrize(("pick", "iqm"), [("last", 100), ("best", 105), ("selected", 99)])
def test_pick_chooses_the_evaluation_of_the_summary(tmp_path, plain, pick, iqm):
    chosen = {"update": 10, "normalized_score": 99}
    runs = [results(score, seed=seed, selected=chosen) for seed, score in enumerate((90, 100, 110))]
    _, page = make(tmp_path, *runs, pick=pick)
    assert cells(page.rows["d4rl"], "GTP", "1", "3")[0].startswith(f"{iqm}.0 [")
    shown = cells(page.rows["d4rl"], "GTP", "0, 1, 2")
    assert shown[:3] == ["100.0 ± 8.2", "105.0 ± 8.2", "99.0 ± 0.0"]


def test_a_pick_that_no_run_has_is_said(tmp_path, plain):
    text, _ = make(tmp_path, results(90), pick="selected")
    assert "No run has a normalized score in its `selected` evaluation." in text


def test_without_a_score_the_return_counts_and_without_a_task_the_energy_score(tmp_path, plain):
    row = {"update": 20, "normalized_score": None, "episodic_return": 12.34, "energy_score": 0.5}
    own = results(env_id="my:Task-v0", last=row, best=row)
    file = results(env_id=None)
    _, page = make(tmp_path, own, file)
    rows = page.rows["other"]
    task, ours = rows[1], rows[2]
    assert task[0].startswith("my:Task-v0\nreturn\ntoy.npz (not D4RL's, SHA-256 cccccccccccc)")
    assert ours[2:] == ["12.3", "12.3"]
    task, ours = rows[3], rows[4]
    assert task[0].startswith("toy.npz\nenergy score, lower is better")
    assert ours[2:] == ["0.3000", "0.3000"]
    assert "No run has a normalized score" in page.words["other"]


def test_a_method_that_lacks_tasks_is_compared_on_those_that_most_have(tmp_path, plain):
    """GTP and D-QL have two tasks, C-AC one of them, GTP-BC another alone."""
    third = "walker2d-medium-v2"
    runs = [results(s, env_id=task) for task, s in ((HOPPER, 90), (CHEETAH, 60), (third, 10))]
    runs += [results(s, "diffusion_ql", task) for task, s in ((HOPPER, 80), (CHEETAH, 40))]
    runs += [results(70, "consistency_ac", HOPPER), results(30, "gtp_bc", third)]
    text, page = make(tmp_path, *runs)
    rows = page.rows["d4rl"]
    assert cells(rows, "GTP", "3", "3") == ["53.3", "75.0"]
    assert cells(rows, "D-QL, 50 candidates", "2", "2") == ["60.0", "60.0"]
    assert cells(rows, "C-AC, 50 candidates", "1", "1") == ["70.0", "-"]
    assert f"the last column, over all tasks but {third}." in text
    assert cells(rows, "D-QL, 50 candidates", "GTP", "2") == ["0.00"]


def test_a_method_of_other_settings_on_some_tasks_says_so(tmp_path, plain):
    """GTP departs on one of its tasks; GTP-BC on both alike, D-QL on none."""
    few, half = {"num_updates": 7}, {"tau": 0.5}
    runs = [results(1, env_id=HOPPER, args=few), results(1, env_id=CHEETAH)]
    runs += [results(1, "gtp_bc", task, args=half) for task in (HOPPER, CHEETAH)]
    runs += [results(1, "diffusion_ql", task) for task in (HOPPER, CHEETAH)]
    text, _ = make(tmp_path, *runs)
    said = re.findall("Not of the same settings on all tasks: .*", text)
    assert said == [f"Not of the same settings on all tasks: GTP: num_updates=7 on {HOPPER}."]
    runs[1] = results(1, env_id=CHEETAH, args=half)
    text, _ = make(tmp_path / "both", *runs)
    assert f"GTP: tau=0.5 on {CHEETAH}; num_updates=7 on {HOPPER}." in text


def test_times_with_and_without_evaluations(tmp_path, plain):
    """2 h and 4 h of training, half an hour and an hour of evaluations."""
    runs = [results(1, seed=0, seconds=7200.0, evaluation_seconds=1800.0)]
    runs += [results(1, seed=1, seconds=14400.0, evaluation_seconds=3600.0)]
    text, _ = make(tmp_path, *runs)
    assert "Hours of a finished run" in text
    assert "| GTP | 2 | 3.0 ± 1.0 | 3.8 ± 1.2 | 0.50 ± 0.00 | cpu, num_threads=1 |" in text


def test_short_runs_are_in_minutes_and_an_old_one_may_lack_the_evaluations(tmp_path, plain):
    text, _ = make(tmp_path, results(1, seconds=90.0))
    assert "Minutes of a finished run" in text
    assert "| GTP | 1 | 1.5 | - | 0.50 |" in text


def test_versions_and_commands(tmp_path, plain):
    about = {"versions": {"torch": "2.99"}, "commit": "f" * 40, "script_sha256": "e" * 64}
    about["command"] = "python gtp_offline.py --env-id <X>"
    text, page = make(tmp_path, results(1, **about), results(1, seed=1))
    rows = page.rows["d4rl"]
    assert ["gtp_offline.py", "e" * 10, "f" * 10, "2.99", "1"] in rows
    assert ["gtp_offline.py", "-", "-", "-", "1"] in rows
    assert "`python gtp_offline.py --env-id <X>`" in text
    assert "python gtp_offline.py --env-id <X>" in page.words["d4rl"]


@pytest.mark.parametrize(
    ("words", "total", "more"),
    [
        ("--num-updates 10", 10, []),
        ("--num_updates=1_000", 1000, []),
        ("--num-updates 10", 20, ["resumed with `--num-updates 20`"]),
        ("--seed 1", 2_000_000, []),
        ("--seed 1", 20, ["resumed with `--num-updates 20`"]),
        ("--quick", 20, []),
    ],
)
def test_a_command_says_what_a_resume_has_changed(tmp_path, words, total, more):
    """results.json keeps the first command; 2,000,000 updates are the default on the task."""
    program = "mine.py" if words == "--quick" else "gtp_offline.py"
    save(tmp_path, results(1, command=f"python {program} {words}", num_updates=total))
    (run,) = report.load([tmp_path])
    begun = f"`python {program} {words}`"
    assert report.commands(run) == [begun, *more]
    rows, _ = report.group([run], "last")
    ((*_, shown),) = report.runs_section(rows, report.labels(rows)).parts[0].rows
    assert shown == "\n".join([begun, *more, run["file"]])
    assert report.commands(run | {"variant": "shortcut"})[1:] == []


# ---- tuning online -------------------------------------------------------------------------------


def add_final(tmp_path, **by_run):
    for name, scores in by_run.items():
        file = tmp_path / "runs" / name / "final_scores.json"
        file.write_text(json.dumps({"normalized_score": 1.0, "scores": scores}))


def test_final_scores_are_a_column_and_a_bandits_arms(tmp_path, plain):
    """Policies with 10 and 30 at every episode: after one, either, after two, the better."""
    save(tmp_path / "runs", results(0, seed=0), results(0, seed=1), results(0, "gtp_bc"))
    add_final(tmp_path, run0=[10, 10], run1=[30], run2=[5])
    text, page = make(tmp_path)
    rows = page.rows["d4rl"]
    assert cells(rows, "GTP", "0, 1")[2] == "20.0 ± 10.0"
    first, *later, best = cells(rows, "GTP", "2")[-7:]
    assert 18 < float(first) < 22
    assert later == ["30.0"] * 5 and best == "30.0"
    assert "![hopper-medium-expert-v2](figures/bandit-hopper-medium-expert-v2-" in text
    assert cells(rows, "GTP-BC", "0")[2] == "5.0"  # one policy: nothing to choose


def test_returns_are_no_bandits_arms(tmp_path, plain):
    """The bonus of UCB is for normalized scores: on another scale it would hardly explore."""
    row = {"update": 20, "normalized_score": None, "episodic_return": 12.0, "energy_score": 0.5}
    task = {"env_id": "Pendulum-v1", "evaluations": [row], "last": row, "best": row}
    save(tmp_path / "runs", *(results(0, seed=seed) | task for seed in (0, 1)))
    add_final(tmp_path, run0=[10, 10], run1=[30])
    assert "Tuning online" not in make(tmp_path)[0]


def test_without_final_scores_nothing_is_said_of_them(tmp_path, plain):
    text, page = make(tmp_path, results(0, seed=0), results(0, seed=1))
    assert "final" not in page.rows["d4rl"][0]
    assert "`final`" not in text and "Tuning online" not in text


FINAL = {"env_id": HOPPER, "num_steps": 5, "num_candidates": 1, "seed": 0, "scores": [10.0, 20.0]}


@pytest.mark.parametrize(
    ("key", "value", "own"),
    [
        ("env_id", CHEETAH, HOPPER),
        ("num_steps", 2, 5),
        ("num_candidates", 50, 1),
        ("seed", 1, 0),
    ],
)
def test_final_scores_of_another_run_are_left_out(tmp_path, plain, capsys, key, value, own):
    """Mean 15 of the own ones; of another run's, none."""
    save(tmp_path / "runs", results(90))
    file = tmp_path / "runs" / "run0" / "final_scores.json"
    file.write_text(json.dumps(FINAL))
    _, page = make(tmp_path)
    assert cells(page.rows["d4rl"], "GTP", "0")[2] == "15.0"
    assert "warning" not in capsys.readouterr().err
    file.write_text(json.dumps(FINAL | {key: value}))
    _, page = make(tmp_path)
    assert "final" not in page.rows["d4rl"][0]
    said = f"final_scores.json is left out, no scores of episodes ({key} is {value}, the run's is"
    assert f"{said} {own})" in page.words["missing"]
    assert said in capsys.readouterr().err


ENERGIES = [{"update": u, "energy_score": e} for u, e in ((10, 0.3), (20, 0.30001))]


@pytest.mark.parametrize(
    ("theirs", "bf16", "updated", "of_the_last"),
    [
        (0.30001, False, 2e9, True),
        (0.300011, False, 1, True),
        (0.300011, False, 2e9, False),
        (0.3, False, 1, False),
        (0.302, False, 1, False),
        (0.302, True, 1, True),
        (0.302, True, 2e9, False),
    ],
    ids=["same", "other device", "before", "earlier", "between", "bf16", "bf16 before"],
)
def test_final_scores_of_another_update_are_left_out(
    tmp_path, plain, theirs, bf16, updated, of_the_last
):
    """By the energy score: the same one, whatever the file's time, since a copied folder has new
    ones; or one that is near, of another device, in a file that is no older than the run's end."""
    run = results(90, evaluations=ENERGIES, last=ENERGIES[1], updated=updated, args={"bf16": bf16})
    save(tmp_path / "runs", run)
    file = tmp_path / "runs" / "run0" / "final_scores.json"
    file.write_text(json.dumps(FINAL | {"energy_score": theirs}))
    _, page = make(tmp_path)
    said = f"of another update: energy_score is {theirs}, the run's last is 0.30001"
    assert (said not in page.words["missing"]) == of_the_last
    assert ("final" in page.rows["d4rl"][0]) == of_the_last


def test_final_scores_of_a_diverged_run_count_nowhere(tmp_path, plain):
    """Seed 1's were made before it went on and diverged: no other number has it."""
    runs = [results(90, seed=0), results(80, seed=1, status="diverged"), results(70, seed=2)]
    save(tmp_path / "runs", *runs)
    add_final(tmp_path, run0=[10], run1=[1000], run2=[30])
    text, page = make(tmp_path)
    assert page.rows["d4rl"][2][4] == "20.0 ± 10.0\n2 of 3 seeds"
    assert cells(page.rows["d4rl"], "GTP", "2")[-1] == "30.0"
    assert "1000.0" not in text


def test_final_scores_say_of_how_many_seeds_they_are(tmp_path, plain):
    save(tmp_path / "runs", *[results(90, seed=seed) for seed in range(3)])
    add_final(tmp_path, run0=[10], run2=[30])
    _, page = make(tmp_path)
    assert page.rows["d4rl"][2][4] == "20.0 ± 10.0\n2 of 3 seeds"


@pytest.mark.parametrize(("second", "said"), [([30], "GTP (1 to 3)"), ([30, 30, 30], None)])
def test_final_scores_say_where_seeds_have_other_numbers_of_episodes(tmp_path, plain, second, said):
    save(tmp_path / "runs", results(90, seed=0), results(90, seed=1))
    add_final(tmp_path, run0=[10, 10, 10], run1=second)
    text, _ = make(tmp_path)
    differ = f"Its seeds differ in the number of episodes: {HOPPER}, {said}."
    assert (differ in text) == bool(said)
    assert ("number of episodes" in text) == bool(said)


@pytest.mark.parametrize(
    "content", ["{", "[]", "3", '{"scores": []}', '{"scores": null}', '{"scores": [[1]]}',
        '{"scores": [1, null]}', '{"scores": ["x"]}', '{"other": 1}', '{"scores": [[1], 2]}',
        '{"scores": [1' + "0" * 400 + "]}"],
)  # fmt: skip
def test_bad_final_scores_are_named_and_the_run_counts(tmp_path, plain, content):
    save(tmp_path / "runs", results(90, seed=0))
    (tmp_path / "runs" / "run0" / "final_scores.json").write_text(content)
    _, page = make(tmp_path)
    assert "run0/final_scores.json is left out" in page.words["missing"]
    assert not re.search(PYTHONS, page.words["missing"])
    assert cells(page.rows["d4rl"], "GTP", "0")[0] == "90.0"


# ---- what may not be mixed -----------------------------------------------------------------------


def test_d4rls_own_files_and_other_data_are_on_separate_pages(tmp_path, plain):
    """Under the same task and file name: the SHA-256 decides."""
    text, page = make(tmp_path, results(100), results(50, sha256=OTHER), results(7, env_id=CHEETAH))
    assert [*page.rows] == ["d4rl", "other", "missing"]
    assert cells(page.rows["d4rl"], "GTP", "2", "2") and "50.0" not in page.words["d4rl"]
    assert cells(page.rows["other"], "GTP", "0") == ["50.0", "55.0"]
    assert "112.2" in page.words["d4rl"] and "112.2" not in page.words["other"]
    assert "paper" not in page.rows["other"][0]
    d4rl, other = text.split("## Other data")
    assert "112.2" in d4rl and "50.0" not in d4rl
    assert "112.2" not in other and "(not D4RL's, SHA-256 aaaaaaaaaaaa)" in other


def test_minaris_and_ogbenchs_scores_are_on_pages_of_their_own(tmp_path):
    tasks = {
        "d4rl": HOPPER,
        "other": "pointmaze-large-v0",
        "minari": "mujoco/hopper/medium-v0",
        "ogbench": "pointmaze-large-navigate-singletask-v0",
    }
    save(tmp_path, *[results(50, env_id=task) for task in tasks.values()])
    made = {page.key: str(page) for page in report.make_pages([tmp_path], "last")}
    assert list(made) == [*tasks, "missing"]
    for key in tasks:
        assert [task for task in tasks.values() if task in made[key]] == [tasks[key]]


def test_a_d4rl_file_of_another_task_is_other_data(tmp_path, plain):
    sha256 = offline_tasks.DATASETS["hopper-medium-v2"][2]
    _, page = make(tmp_path, results(50, sha256=sha256))
    assert "d4rl" not in page.rows
    assert "D4RL's hopper-medium-v2" in page.words["other"]


def test_rows_of_a_task_are_told_apart_by_what_differs(tmp_path, plain):
    """hidden_dim is 64 in both: small print, not name."""
    runs = [
        results(1, args={"hidden_dim": 64}),
        results(2, args={"hidden_dim": 64, "num_steps": 2}),
    ]
    _, page = make(tmp_path, *runs, results(3, env_id=CHEETAH, args={"num_steps": 2}))
    names = [row[0] for row in page.rows["d4rl"]]
    assert "GTP\nhidden_dim=64" in names
    assert "GTP; num_steps=2\nhidden_dim=64, num_steps=2" in names
    assert cells(page.rows["d4rl"], "GTP; num_steps=2", "2", "2")  # on both tasks the same name


def older(results, *names):
    """Written by a version that did not have some arguments, nor units of actions."""
    args = {name: value for name, value in results["args"].items() if name not in names}
    return results | {"args": args}


UNITS = {"action_units": "unit", "action_bounds": [-1.0, 1.0]}
LATER = ("action_units", "bf16", "d4rl_semantics", "reward_normalization", "track")


@pytest.mark.parametrize("script", ["diffusion_ql", "consistency_ac"])
@pytest.mark.parametrize(
    ("pick", "early_stop", "counts"),
    [("last", False, False), ("last", True, True), ("best", False, True), ("best", True, True)],
)
def test_how_often_a_run_evaluates_counts_where_it_decides(
    tmp_path, plain, script, pick, early_stop, counts
):
    """--early-stop ends a run at an evaluation, and `best` is one; the last of a run of full length
    is the same at any frequency. Where it counts, no run repeats one of another frequency."""
    often = {"eval_freq": 25_000, "early_stop": early_stop}
    seldom = {"eval_freq": 50_000, "early_stop": early_stop}
    runs = [results(90, script, args=seldom), results(91, script, seed=1, args=often)]
    runs.append(results(92, script, args=often))
    _, page = make(tmp_path, *runs, pick=pick)
    first = page.rows["d4rl"].index([HOPPER]) + 1
    found = [row[:2] for row in page.rows["d4rl"][first : first + 1 + counts]]
    assert sorted(seeds for _, seeds in found) == (["0", "0, 1"] if counts else ["0, 1"])
    assert sum("eval_freq=25000" in name for name, _ in found) == counts
    assert ("repeats it" in page.words["missing"]) != counts


@pytest.mark.parametrize("pick", ["last", "best"])
def test_an_older_run_is_in_the_row_of_todays_that_learns_the_same(tmp_path, plain, pick):
    """Also where it has 2 for 2.0, and where the units were given that would have been taken."""
    new = results(100, "diffusion_ql", seed=1, args={"tau": 1.0})
    new["dataset"] |= UNITS
    given = results(110, "diffusion_ql", seed=2, args={"tau": 1.0, "action_units": "unit"})
    given["dataset"] |= UNITS
    old = results(90, "diffusion_ql", args={"tau": 1})
    _, page = make(tmp_path, older(old, *LATER), new, given, pick=pick)
    rows = page.rows["d4rl"][2:4]
    assert rows[0][:2] == ["D-QL, 50 candidates\ntau=1.0", "0, 1, 2"]
    assert rows[1][0] == "method"  # of the next table: there is no other row


def test_an_older_run_that_learnt_otherwise_is_another_row_and_says_how(tmp_path, plain):
    """GTP's critic was another, and a file without a task lost its rows of D4RL's rule."""
    runs = [results(90), older(results(80, seed=1), *LATER, "critic_norm", "ema_every")]
    file = [results(env_id=None, seed=0), older(results(env_id=None, seed=1), *LATER)]
    _, page = make(tmp_path, *runs, *file)
    assert [row[:2] for row in page.rows["d4rl"][2:4]] == [
        ["GTP", "0"],
        ["GTP; critic_norm=none, ema_every=1", "1"],
    ]
    assert [row[:2] for row in page.rows["other"][2:4]] == [
        ["GTP", "0"],
        ["GTP; d4rl_semantics=True", "1"],
    ]


def test_actions_in_other_units_are_another_row_whatever_was_asked(tmp_path, plain):
    """An environment from -2 to 2: older runs took all files as in [-1, 1], today's asks the file;
    where it finds the same, nothing differs."""
    wide = {"action_bounds": [[-2.0], [2.0]]}
    pendulum = {"env_id": "my:Pendulum-v0", "sha256": OTHER}
    old = older(results(10, seed=0, **pendulum), *LATER[:2])
    found = results(20, seed=1, **pendulum)
    found["dataset"] |= wide | {"action_units": "unit"}
    stretched = results(30, seed=2, **pendulum)
    stretched["dataset"] |= wide | {"action_units": "env"}
    _, page = make(tmp_path, old, found, stretched)
    assert [row[:2] for row in page.rows["other"][2:4]] == [
        ["GTP", "2"],
        ["GTP; action_units=unit", "0, 1"],
    ]


def test_a_sweeps_variant_is_in_the_name(tmp_path, plain):
    folder = tmp_path / "runs" / "gtp_offline" / HOPPER
    for variant, steps in (("default", 5), ("k2", 2)):
        run_dir = folder / variant / "0"
        run_dir.mkdir(parents=True)
        content = results(steps, args={"num_steps": steps})
        (run_dir / "results.json").write_text(json.dumps(content))
    _, page = make(tmp_path)
    assert cells(page.rows["d4rl"], "GTP, k2", "0")[0] == "2.0"
    assert cells(page.rows["d4rl"], "GTP", "0")[0] == "5.0"


def test_clones_by_their_tasks_default_are_explained(tmp_path, plain):
    """multigoal-v0, on which sweeps/smoke.toml runs, is for cloning; --eta 0 needs no word."""
    toys = [results(1, name, "multigoal-v0", sha256=OTHER) for name in report.METHODS]
    asked = results(1, "diffusion_ql", args={"eta": 0.0})
    _, page = make(tmp_path, *toys, asked)
    names = "C-BC; D-BC; GTP-BC (gtp_offline.py)"
    why = f"{names}: cloning, because eta is 0 by default on multigoal-v0"
    assert why in page.words["other"]
    assert "by default" not in page.words["d4rl"]


# ---- what is left out ----------------------------------------------------------------------------


def test_runs_that_have_not_ended_are_named_and_left_out(tmp_path, plain):
    now = int(time.time())
    going = results(1, seed=1, status="running", update=7, updated=now)
    lost = results(2, seed=2, status="running", update=8, updated=now - 3600)
    stopped = results(3, seed=3, status="interrupted", update=9)
    save(tmp_path / "runs", results(90), going, lost, stopped, results(4, seed=4, status="failed"))
    for name in ("run2", "run3", "run4"):
        (tmp_path / "runs" / name / "checkpoint.pt").touch()
    _, page = make(tmp_path)
    words = page.words["missing"]
    assert "run1/results.json: running, update 7 of 20" in words
    assert "run2/results.json: running, but not heard of for five minutes, update 8 of 20" in words
    assert "run3/results.json: interrupted, update 9 of 20" in words
    assert "run4/results.json: failed" in words
    resumes = re.findall(r"--resume \S*?/(run\d)", words)
    assert resumes == ["run2", "run3", "run4"]
    assert cells(page.rows["d4rl"], "GTP", "0")[0] == "90.0"


def test_the_way_on_is_one_that_the_run_can_take(tmp_path, plain, capsys):
    """A run without a checkpoint starts again; an ablation refuses its script's --resume."""
    about = {"status": "interrupted", "command": "python x.py --steps 2"}
    old = {"status": "interrupted"}
    kinds = [about, about | {"variant": "shortcut"}, about | {"variant": "linear"}, old]
    save(tmp_path / "runs", *[results(1, seed=seed, **kind) for seed, kind in enumerate(kinds)])
    (tmp_path / "runs" / "run1" / "checkpoint.previous.pt").touch()
    runs = report.load([tmp_path])
    again = "no checkpoint, start again: "
    begun = "`python x.py --steps 2`"
    ways = [f"{again}{begun}", f"go on: {begun}", f"{again}{begun}"]
    ways.append(f"{again}by the command that began it")
    assert [report.way_on(run) for run in runs] == ways
    _, page = make(tmp_path)
    assert [row[0].partition("\n")[2] for row in page.rows["missing"][1:]] == [
        way.replace("`", "") for way in ways
    ]


def test_diverged_seeds_are_named_and_no_others_are_expected(tmp_path, plain):
    """Seed 2 of another method, or a hole among the seeds, is no promise of a run."""
    gone = {"status": "diverged", "last": None, "best": None, "evaluations": []}
    runs = [results(90), results(seed=1, **gone), results(80, "gtp_bc", seed=2)]
    _, page = make(tmp_path, *runs)
    shown = [row[1] for row in page.rows["d4rl"][2:4]]
    assert shown == ["0, 1\ndiverged: 1", "2"]
    assert "1 diverged run left out." in page.words["d4rl"]


@pytest.mark.parametrize("score", [None, float("nan"), "12", ...])
def test_a_finished_run_without_a_score_is_named(tmp_path, plain, score):
    """The mean of 90 and 100 is of two seeds, and the row says so."""
    nothing = {} if score is ... else {"normalized_score": score}
    last = {"update": 20, "energy_score": 0.3} | nothing
    runs = [results(90), results(95, seed=1, last=last), results(100, seed=2)]
    _, page = make(tmp_path, *runs)
    row = page.rows["d4rl"][2]
    assert row[1:3] == ["0, 1, 2\nno score: 1", "95.0 ± 5.0"]
    assert "run1/results.json: no normalized_score in its last" in page.words["missing"]
    assert "Nothing is missing" not in page.words["missing"]


def test_a_finished_run_without_an_evaluation_is_named(tmp_path, plain):
    """In the evaluation that counts, and in another that the page shows."""
    runs = [results(90), results(95, seed=1, last=None), results(100, seed=2, best=None)]
    _, page = make(tmp_path, *runs)
    row = page.rows["d4rl"][2]
    assert row[1] == "0, 1, 2\nno score: 1\nno score in best: 2"
    assert row[2:4] == ["95.0 ± 5.0", "97.5 ± 2.5"]


def test_nobody_expects_a_selected_evaluation_of_gtp(tmp_path, plain):
    _, page = make(tmp_path, results(90), pick="selected")
    assert page.rows["d4rl"][2][1] == "0"
    assert "Nothing is missing" in page.words["missing"]


def test_a_run_that_early_stop_ended_says_where(tmp_path, plain):
    early = {"early_stop": [3.0, 4.0], "num_updates": 100_000}
    stopped = results(90, "diffusion_ql", update=50_000, **early)
    at_the_end = results(80, "diffusion_ql", seed=1, update=100_000, **early)
    _, page = make(tmp_path, stopped, at_the_end)
    rows = page.rows["d4rl"]
    assert rows[2][1] == "0, 1\nseed 0: early stop at 50,000"
    runs = [row for row in rows if row[:1] == ["D-QL, 50 candidates"] and len(row) == 5][-2:]
    assert [row[2] for row in runs] == ["finished\nearly stop at 50,000", "finished"]


def test_a_linked_folder_is_followed_and_a_loop_ends(tmp_path, plain):
    """Seed 1 lies on another disk; a link back to the runs counts nothing twice."""
    save(tmp_path / "elsewhere", results(100, seed=1))
    save(tmp_path / "runs", results(90))
    (tmp_path / "runs" / "linked").symlink_to(tmp_path / "elsewhere" / "run0")
    (tmp_path / "runs" / "run0" / "loop").symlink_to(tmp_path / "runs")
    _, page = make(tmp_path)
    assert cells(page.rows["d4rl"], "GTP", "0, 1")[0] == "95.0 ± 5.0"
    assert "Nothing is missing" in page.words["missing"]


def test_a_run_that_another_repeats_is_named(tmp_path, plain):
    """The one that ended first is left out, whatever the files' times."""
    save(tmp_path / "runs", results(90, updated=1e9 + 5), results(91, updated=1e9))
    os.utime(tmp_path / "runs" / "run0" / "results.json", (1e9, 1e9))
    _, page = make(tmp_path)
    said = r"run1/results.json is left out, the newer \S+run0/results.json repeats it"
    assert re.search(said, page.words["missing"])
    assert cells(page.rows["d4rl"], "GTP", "0")[0] == "90.0"
    assert "1 file or run is in none of the scores." in page.words["missing"]


def test_only_what_could_be_a_sweep_is_looked_at(tmp_path, plain, capsys):
    """A project's pyproject.toml is none; a table with `scripts` is meant to be one."""
    save(tmp_path / "runs", results(90))
    (tmp_path / "runs" / "pyproject.toml").write_text("[tool.ruff]\nline-length = 100\n")
    make(tmp_path)
    assert "warning" not in capsys.readouterr().err
    (tmp_path / "runs" / "mine.toml").write_text("scripts = 3\n")
    make(tmp_path)
    assert "warning: no sweep: " in capsys.readouterr().err


@pytest.mark.parametrize("below", [".", "my"])
def test_missing_is_what_a_sweep_has_planned_and_what_has_no_results(tmp_path, plain, below):
    """In the words of sweep.py status, wherever below the named folder the sweep's runs lie. Seed 0
    is there, 1 is waiting, 2 crashed twice at its start, 3 runs: not missing, but not ended."""
    folder = tmp_path / "runs" / below
    task = folder / "gtp_bc" / "multigoal-v0" / "default"
    for seed, status in ((0, "finished"), (3, "running")):
        run = results(90, "gtp_bc", "multigoal-v0", seed, sha256=OTHER, status=status)
        (task / str(seed)).mkdir(parents=True)
        (task / str(seed) / "results.json").write_text(json.dumps(run))
    (task / "2").mkdir()
    (task / "2" / "attempts").write_text("2\n")
    plan = 'scripts = ["gtp_bc"]\ntasks = ["multigoal-v0"]\nseeds = [0, 1, 2, 3]\n'
    (folder / "my.toml").write_text(plan)
    (folder / "foreign.toml").write_text("[")
    _, page = make(tmp_path, results(7, "gtp_bc", "multigoal-v0", 9, sha256=OTHER, args={"tau": 1}))
    words = page.words["missing"]
    assert f"{task / '1'}: waiting (my.toml)" in words
    assert f"{task / '2'}: failed (my.toml)" in words
    assert f"{task / '0'}" not in words
    assert "no sweep: " in words and "foreign.toml is no TOML file" in words
    assert [row[1] for row in page.rows["other"][2:4]] == ["0\nmissing: 1, 2", "9"]


def test_a_sweep_file_apart_from_its_runs_counts_them_once(tmp_path, plain):
    """project/my.toml and project/out, which has a copy: all has been run that it plans."""
    plan = 'scripts = ["gtp_offline"]\ntasks = ["hopper-medium-expert-v2"]\nseeds = [0]\n'
    out = tmp_path / "runs" / "out"
    folder = out / "gtp_offline" / "hopper-medium-expert-v2" / "default" / "0"
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(results(90, seed=0)))
    for place in (tmp_path / "runs", out):
        (place / "my.toml").write_text(plan)
    assert "waiting" not in make(tmp_path)[0]
    (tmp_path / "runs" / "my.toml").write_text(plan + "# another\n")
    assert "waiting (my.toml)" in make(tmp_path)[0]


def test_a_seed_that_was_taken_out_of_the_sweep_is_named(tmp_path, plain):
    """Seed 1 was in the file when it ran."""
    folder = tmp_path / "runs"
    for seed in (0, 1, 2):
        run_dir = folder / "gtp_bc" / "multigoal-v0" / "default" / str(seed)
        run_dir.mkdir(parents=True)
        run = results(90, "gtp_bc", "multigoal-v0", seed, sha256=OTHER)
        (run_dir / "results.json").write_text(json.dumps(run))
    plan = 'scripts = ["gtp_bc"]\ntasks = ["multigoal-v0"]\nseeds = {}\n'
    (folder / "my.toml").write_text(plan.format([0, 2]))
    _, page = make(tmp_path)
    assert page.rows["other"][2][1] == "0, 1, 2\nnot in my.toml: 1"
    (folder / "more.toml").write_text(plan.format([1]))
    _, page = make(tmp_path)
    assert page.rows["other"][2][1] == "0, 1, 2"


@pytest.mark.parametrize("seed", [0, 9])
def test_a_run_beside_a_sweep_does_not_take_its_name(tmp_path, plain, seed):
    """Whatever its seed: the sweep's variant is one row of both tasks over all."""
    folder = tmp_path / "runs" / "sweep"
    folder.mkdir(parents=True)
    plan = 'scripts = ["gtp_bc"]\ntasks = ["{}", "{}"]\nseeds = [1, 2]\n[variants.own]\n'
    (folder / "my.toml").write_text(plan.format(HOPPER, CHEETAH))
    runs = {tmp_path / "runs" / "alone": results(80, "gtp_bc", HOPPER, seed)}
    for task in (HOPPER, CHEETAH):
        for number in (1, 2):
            place = folder / "gtp_bc" / task / "own" / str(number)
            runs[place] = results(90, "gtp_bc", task, number)
    for place, run in runs.items():
        place.mkdir(parents=True)
        (place / "results.json").write_text(json.dumps(run))
    _, page = make(tmp_path)
    methods = {cell for row in page.rows["d4rl"] for cell in row if cell.startswith("GTP-BC")}
    assert methods == {"GTP-BC, own"}


@pytest.mark.parametrize("place", [".", "results.json"])
def test_a_runs_own_folder_is_a_place_like_others(tmp_path, plain, monkeypatch, place):
    save(tmp_path / "runs", results(90, env_id="my:Task-v0"))
    monkeypatch.chdir(tmp_path / "runs" / "run0")
    assert report.main([place, "--out", str(tmp_path / "out")]) == 0
    assert "my:Task-v0" in (tmp_path / "out" / "report.md").read_text()


def test_missing_agrees_with_the_status_of_the_sweep(tmp_path):
    """Without any results in the sweep's own folder all of it is missing."""
    plan = 'scripts = ["gtp_bc"]\ntasks = ["multigoal-v0"]\nseeds = [0, 1]\n'
    (tmp_path / "my.toml").write_text(plan)
    absent = report.absent_runs(report.find_sweeps([tmp_path], []))
    states = progress.Progress(read_sweep(tmp_path / "my.toml"), tmp_path).states()
    assert absent == {tmp_path / name: f"{state} (my.toml)" for name, state in states.items()}
    assert len(absent) == 2


PYTHONS = "column|Expecting|codec|recursion|Errno|indices|subscript|convert|sequence|digits|attrib"


@pytest.mark.parametrize("content", [
    b"", b'{"algorithm": "gtp_offline", "env_id": "hop', b"\xff", b"[]", b"{}", b"[" * 10**5,
    json.dumps(results(1) | {"algorithm": "dreamer"}).encode(),
    b'{"seed": 1' + b"0" * 5000 + b"}",
])  # fmt: skip
def test_a_file_that_cannot_be_read_is_named_and_left_out(tmp_path, plain, content):
    (tmp_path / "runs" / "half").mkdir(parents=True)
    (tmp_path / "runs" / "half" / "results.json").write_bytes(content)
    text, page = make(tmp_path, results(90))
    assert "half/results.json is left out, no results of a run" in page.words["missing"]
    assert not re.search(PYTHONS, page.words["missing"])
    assert cells(page.rows["d4rl"], "GTP", "0")[0] == "90.0"
    assert "half/results.json is left out" in text


@pytest.mark.parametrize("row", [[1], 1, "x", [[]], {}, {"update": "x"}])
def test_an_evaluation_without_an_update_is_named(tmp_path, row):
    file = tmp_path / "results.json"
    file.write_text(json.dumps(results(1) | {"evaluations": [row]}))
    said = f"{file} is left out, no results of a run (an evaluation has no update: {row})"
    with pytest.raises(ValueError, match=re.escape(said)):
        report.read(file)


def test_final_scores_from_before_the_runs_end_are_left_out(tmp_path, plain):
    save(tmp_path / "runs", results(90) | {"updated": 2_000_000_000})
    (tmp_path / "runs" / "run0" / "final_scores.json").write_text(json.dumps(FINAL))
    _, page = make(tmp_path)
    said = "final_scores.json is left out, no scores of episodes (it is older than the run's end)"
    assert said in page.words["missing"]


@pytest.mark.parametrize("name", ["report.md", "index.html"])
def test_a_file_that_is_no_report_is_not_replaced(name, tmp_path, plain):
    save(tmp_path / "runs", results(90))
    make(tmp_path)
    (out,) = [file.parent for file in tmp_path.rglob("index.html")]
    report.check_out(out)
    (out / name).write_text("<!doctype html>mine")
    with pytest.raises(ValueError, match=f"has a {name} that is no report; name another"):
        report.check_out(out)


def test_a_folder_in_place_of_a_file_is_named(tmp_path, plain):
    """Of a results.json, and of a final_scores.json."""
    (tmp_path / "runs" / "a" / "results.json").mkdir(parents=True)
    save(tmp_path / "runs", results(90))
    (tmp_path / "runs" / "run0" / "final_scores.json").mkdir()
    _, page = make(tmp_path)
    words = page.words["missing"]
    assert "a/results.json is left out, no results of a run (a folder)" in words
    assert "final_scores.json is left out, no scores of episodes (a folder)" in words


def test_what_a_file_lacks_is_named(tmp_path):
    """docs/results has such files, cut down to what is drawn."""
    file = tmp_path / "results.json"
    file.write_text('{"algorithm": "gtp_bc", "seed": 1, "status": "finished", "evaluations": []}')
    with pytest.raises(ValueError, match="it has no args, dataset"):
        report.read(file)


ODD = (None, True, 3, 10**400, 2.5, float("nan"), "x", [], [3], [None], {}, {"x": None})


def test_no_odd_value_makes_the_report_fail(tmp_path, plain):
    """Every key, of the results and of what they hold, with values of every kind."""
    whole = results(1, seed=0)
    odd = []
    for key in whole:
        odd += [whole | {key: value} for value in ODD]
        if isinstance(whole[key], dict) and key != "args":
            odd += [whole | {key: whole[key] | {k: v}} for k in whole[key] for v in ODD]
    for key in ("num_steps", "num_candidates", "eta", "device", "literal"):
        odd += [whole | {"args": whole["args"] | {key: value}} for value in ODD]
    for value in ODD:
        odd.append(whole | {"evaluations": [value]})
        odd.append(whole | {"evaluations": [whole["last"] | {"normalized_score": value}]})
    _, page = make(tmp_path, *odd)
    assert page.words["missing"].count("no results of a run") > 50
    assert not re.search(PYTHONS, page.words["missing"])


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["{here}"], 1, "no usable results.json in {here}; name folders of runs"),
        (["{here}/no"], 2, "{here}/no does not exist; name folders or files of runs"),
        (["{here}", "{here}/no"], 2, "{here}/no does not exist; name"),
        ([], 2, "no DIR is given; name folders of runs"),
        (["{here}/runs", "--out", "{here}/file"], 1, "--out {here}/file is no folder to write to"),
        (["{here}/runs", "--out", "{here}/file/sub"], 1, "--out {here}/file/sub: {here}/file"),
    ],
)
def test_what_cannot_be_done_is_one_line(tmp_path, plain, monkeypatch, capsys, words, code, said):
    """Exit code 2 for a wrong argument, 1 for the rest, as everywhere."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    if "--out" in words:
        save(tmp_path / "runs", results(1))
    assert report.main([word.format(here=tmp_path) for word in words]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: " + said.format(here=tmp_path))


@pytest.mark.parametrize("name", ["report.md", "index.html", "figures"])
def test_what_is_in_the_way_of_a_report_is_named_before_the_work(
    tmp_path, monkeypatch, capsys, name
):
    """A folder where a file is to be, or a file where a folder is; nothing else is written."""
    save(tmp_path / "runs", results(1))
    out = tmp_path / "out"
    out.mkdir()
    if name == "figures":
        (out / name).write_text("")
    else:
        (out / name).mkdir()
    monkeypatch.setattr(report, "make_pages", None)
    assert report.main([str(tmp_path / "runs"), "--out", str(out)]) == 1
    what = "a file" if name == "figures" else "a folder"
    said = f"error: --out {out} is no folder to write to: {out / name} is {what}; name another"
    assert capsys.readouterr().err.splitlines() == [said]
    assert [path.name for path in out.iterdir()] == [name]


def test_an_unknown_word_is_exit_code_2(tmp_path):
    with pytest.raises(SystemExit, match="2"):
        report.main([str(tmp_path), "--pick", "first"])


@pytest.mark.parametrize("width", [80, 120])
def test_help_keeps_its_lines(monkeypatch, capsys, width):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr("sys.argv", ["report.py"])
    with pytest.raises(SystemExit, match="0"):
        report.main(["--help"])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    assert lines[2:6] == [
        "A report of many runs: report.md and index.html from their results.json files.",
        "    python report.py runs --out report/",
        "    python report.py runs/table2 runs/more --out report/ --pick best",
        "",
    ]
    assert not any("(default: )" in line for line in lines)


# ---- the files -----------------------------------------------------------------------------------


def test_index_html_needs_nothing_else_and_pictures_are_drawn(tmp_path):
    """The same bytes twice: nothing in it depends on the moment."""
    save(tmp_path / "runs", *(results(score, seed=seed) for seed, score in enumerate((1, 2))))
    add_final(tmp_path, run0=[10, 20], run1=[30, 0])
    text, page = make(tmp_path)
    links = [link for link in page.links if not link.startswith("data:image/svg+xml;base64,")]
    assert links == ["#d4rl", "#missing"]
    whole = (tmp_path / "out" / "index.html").read_bytes()
    assert b"http" not in whole and b"<script" not in whole and b"@import" not in whole
    drawn = sorted(path.stem for path in (tmp_path / "out" / "figures").iterdir())
    assert [name.rpartition("-")[0] for name in drawn] == [
        "bandit-hopper-medium-expert-v2",
        "curves-hopper-medium-expert-v2",
        "profile",
    ]
    assert sorted(re.findall(r"\]\(figures/(.*)\.svg\)", text)) == drawn
    make(tmp_path)
    assert (tmp_path / "out" / "index.html").read_bytes() == whole


def test_a_curve_is_the_mean_of_the_seeds_with_their_deviation(tmp_path, monkeypatch):
    """0 and 10 after 10 updates, 20 and 40 after 20; one run alone has an evaluation at 30."""
    drawn = {}
    monkeypatch.setattr(report, "svg", lambda figure: b"<svg/>")
    monkeypatch.setattr(report, "draw_line", lambda *given: drawn.update({given[2]: given[3:]}))
    runs = []
    for seed, scores in enumerate(({10: 0, 20: 20, 30: 99}, {10: 10, 20: 40, 30: None})):
        rows = [{"update": u, "normalized_score": s} for u, s in scores.items()]
        runs.append(results(1, seed=seed, evaluations=rows))
    save(tmp_path, *runs)
    rows, _ = report.group(report.load([tmp_path]), "last")
    report.draw_curve(None, 0, "GTP", rows[0], "normalized_score")
    updates, mean, (low, high) = drawn["GTP"]
    assert updates == [10, 20] and mean.tolist() == [5, 30]
    assert low.tolist() == [0, 20] and high.tolist() == [10, 40]


def test_seeds_that_were_evaluated_at_other_updates_are_named(tmp_path, plain):
    """Their last evaluations may be joined, their best ones are of more or fewer."""
    _, page = make(
        tmp_path, *[results(90, seed=s, args={"eval_freq": 9 - s // 2}) for s in (0, 1, 2)]
    )
    assert page.rows["d4rl"][2][1].splitlines() == [
        "0, 1, 2",
        "eval_freq 9: 0, 1",
        "eval_freq 8: 2",
        "only last compares them",
    ]


def test_a_seed_without_any_score_takes_no_curve_away(tmp_path, monkeypatch):
    """What has no curve is named: GTP-BC's seeds share no update."""
    drawn = []
    monkeypatch.setattr(report, "svg", lambda figure: b"<svg/>")
    monkeypatch.setattr(report, "draw_line", lambda *given: drawn.append(given[2:5]))
    runs = [results(1, seed=seed) for seed in (0, 1)]
    runs[1]["evaluations"] = [{"update": 20, "normalized_score": None}]
    for seed, update in enumerate((10, 20)):
        rows = [{"update": update, "normalized_score": 1}]
        runs.append(results(1, "gtp_bc", seed=seed, evaluations=rows))
    save(tmp_path, *runs)
    rows, _ = report.group(report.load([tmp_path]), "last")
    section = report.curves_section(rows, report.labels(rows))
    ((name, updates, mean),) = drawn
    assert (name, updates, mean.tolist()) == ("GTP", [10, 20], [6, 1])
    said = "Without an evaluation in common, so without a curve: GTP-BC on"
    assert f"{said} {HOPPER}." in section.note


def test_texts_are_escaped():
    table = pages.Table(["method", "what"], [["<b>|x", "`a < b`\nsmall"]])
    section = pages.Section("A & B", "", [table])
    page = pages.Page("k", "T", "", [section])
    text = pages.html_document([page], "c")
    assert "<h3>A &amp; B</h3>" in text and "&lt;b&gt;|x" in text
    assert "<code>a &lt; b</code><small>small</small>" in text
    assert "| <b>\\|x | `a < b`<br>small |" in pages.markdown([page], "c")


def test_one_page_is_shown_at_a_time_and_the_window_is_as_wide_as_the_device():
    text = pages.html_document([pages.Page("a", "A", "", []), pages.Page("b", "B", "", [])], "c")
    assert 'content="width=device-width' in text
    assert ".page:target { display: block; }" in text
    assert text.count('<section class="page"') == 2
