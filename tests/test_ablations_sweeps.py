"""The sweeps: exact answers of the temperature, one switch per design choice, K and times."""

import importlib
import json
import math
import re
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import ROOT

sys.path.insert(0, str(ROOT / "ablations"))
import design_choices
import experiment
import horizon
import inference_time
import paper
import temperature
import toy

import diffusion_ql as dql
import gtp_offline as gtp
import offline_tasks


@pytest.fixture(autouse=True)
def quick_runs(tmp_path, monkeypatch):
    """No pictures of single runs, and no files outside tmp_path."""
    monkeypatch.setattr(offline_tasks, "plot_run", lambda *args, **kwargs: None)
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path / "datasets"))


def call(script, *argv) -> int:
    return experiment.main(script.run, script.Arguments, [*map(str, argv)])


def is_png(path) -> bool:
    return path.read_bytes().startswith(b"\x89PNG")


# ---- temperature -------------------------------------------------------------------------------


def test_the_exact_masses_are_the_weighted_ones():
    """Advantages -1, 0, 1, 2: the weights are 1, 1, e^eta, e^(2 eta), or the clip."""
    expected = np.array([0.4, 0.3, 0.2 * math.e, 0.1 * math.e**2])
    assert toy.weighted_masses(1.0) == pytest.approx(expected / expected.sum())
    expected = np.array([0.4, 0.3, 0.2 * 2, 0.1 * 2])  # clipped at 2
    assert toy.weighted_masses(1.0, 2.0) == pytest.approx(expected / expected.sum())
    assert toy.weighted_masses(0.0) == pytest.approx([0.4, 0.3, 0.2, 0.1])


def test_effective_samples_are_kishs():
    weights = np.array([1, 1, 2, 2])
    share = (toy.MASSES @ weights) ** 2 / (toy.MASSES @ weights**2)
    masses = toy.weighted_masses(1.0, 2.0)
    assert temperature.effective_samples(masses) == pytest.approx(share)
    assert temperature.effective_samples(toy.MASSES) == pytest.approx(1)


@pytest.mark.parametrize("eta", [0.0, 1.0, 5.0])
def test_the_exact_energy_score_is_the_mean_of_the_sampled_one(eta):
    rng, masses, n = np.random.default_rng(0), toy.weighted_masses(eta), 20_000
    obs = rng.uniform(-1, 1, (n, 1))
    drawn = np.stack([toy.sample(obs, rng, masses)[0] for _ in range(16)])
    actions = torch.from_numpy(toy.sample(obs, rng)[0])
    sampled = gtp.energy_score(torch.from_numpy(drawn), actions)
    assert toy.energy_score(masses) == pytest.approx(sampled.item(), abs=0.006)


def test_the_behaviour_has_the_least_energy_score():
    least = toy.energy_score(toy.MASSES)
    for masses in ([0.25] * 4, [0.45, 0.3, 0.15, 0.1], toy.weighted_masses(0.5)):
        assert toy.energy_score(np.array(masses)) > least


def sweep(**changes):
    given = {"dataset_path": "toy.npz", "etas": (0.0, 1.0, 5.0)} | changes
    return temperature.Arguments(**given)


def test_every_eta_meets_every_clip_and_no_weights_meet_none():
    variants = temperature.variants(sweep())
    pairs = [(v.changes["eta"], v.changes.get("max_weight")) for v in variants.values()]
    assert [*variants][:2] == ["eta = 0", "eta = 1, clip 100"]
    assert pairs[0] == (0, None) and len(pairs) == 5
    assert {*pairs[1:]} == {(eta, clip) for eta in (1.0, 5.0) for clip in (100.0, math.inf)}


def test_only_the_toy_has_settings_of_its_own():
    off = sweep(env_id="hopper-medium-expert-v2", dataset_path="", etas=(1.0, 5.0))
    off = temperature.variants(off)
    changed = {"eta", "max_weight", *experiment.EQ_14}
    assert all({*v.changes} == changed for v in off.values())
    on = temperature.variants(sweep())
    norm = gtp.default_args(env_id="hopper-medium-expert-v2").grad_norm
    assert {v.changes["grad_norm"] for v in on.values()} == {norm}


def test_temperature_quick(tmp_path, capsys):
    argv = (
        "--quick",
        "--num-updates",
        "8",
        "--out",
        tmp_path,
        "--etas",
        "0",
        "1",
        "--clips",
        "2",
        "inf",
    )
    assert call(temperature, *argv) == 0
    table = json.loads((tmp_path / "temperature.json").read_text())["variants"]
    assert [*table] == ["eta = 0", "eta = 1, clip 2", "eta = 1, no clip"]
    assert [row["clip"] for row in table.values()] == [None, 2, None]  # JSON has no infinity
    exact = toy.weighted_masses(1.0, 2.0)
    assert table["eta = 1, clip 2"]["exact"]["masses"] == pytest.approx(exact)
    for row in table.values():
        act = gtp.load_policy(row["run_dirs"][0])
        assert row["best_mode"] == [toy.metrics(act)["masses"][3], 0]
    args = json.loads((tmp_path / "eta___1__clip_2__0__8__quick/results.json").read_text())["args"]
    assert (args["eta"], args["max_weight"]) == (1, 2)
    assert is_png(tmp_path / "temperature.png")
    assert "| eta = 1, no clip | " in capsys.readouterr().out


# ---- design choices ----------------------------------------------------------------------------

USUAL = vars(gtp.default_args(dataset_path="-"))
LETTER = vars(gtp.default_args(dataset_path="-", literal=True))
DIFFERENCES = {k: (USUAL[k], LETTER[k]) for k in USUAL if k != "literal" and USUAL[k] != LETTER[k]}


def resolved(variant, options) -> dict:
    return vars(experiment.arguments(variant, 0, options))


@pytest.mark.parametrize("eta", [0.0, 5.0])
@pytest.mark.parametrize("family", design_choices.FAMILIES)
@pytest.mark.parametrize("data", ["toy.npz", "other.npz"])
def test_every_difference_is_switched_alone_in_each_family(family, eta, data):
    """On the toy no family normalises the observations or averages slowly: the letter's choices."""
    options = design_choices.Arguments(eta=eta, family=family, dataset_path=data)
    variants = design_choices.variants(options)
    letter = family == "letter"
    base = resolved(variants.pop(family), options)
    same = {"num_holdout"} | (
        {"normalize_observations", "ema_every"} if data == "toy.npz" else set()
    )
    for name, pair in DIFFERENCES.items():
        assert base[name] == (pair[letter] if name not in same else pair[name != "num_holdout"])
    switched = []
    for title, variant in variants.items():
        assert title.startswith(family + ", ")
        args = resolved(variant, options)
        (name,) = (k for k in args if args[k] != base[k])
        if name in DIFFERENCES:
            assert args[name] == DIFFERENCES[name][not letter]
        switched.append(name)
    expected = {*DIFFERENCES, "u_sampling"}
    if letter:  # the default's TD target takes a learned V
        expected |= {"value"}
    expected -= {"num_holdout"} if letter or data != "toy.npz" else same
    if eta == 0:  # no weights
        expected -= set(design_choices.CRITIC)
    assert sorted(switched) == sorted(expected)


def test_families_and_candidates():
    data = "other.npz"
    both = design_choices.variants(design_choices.Arguments(dataset_path=data))
    options = design_choices.Arguments(family="default", dataset_path=data)
    default = design_choices.variants(options)
    assert [*both][: len(default)] == [*default] and len(both) == 2 * len(default)
    options = design_choices.Arguments(env_id="hopper-medium-expert-v2")
    titles = {*design_choices.variants(options)} - {*both}
    assert titles == {"default, 50 candidates", "letter, 50 candidates"}


def test_titles_name_the_value_that_is_set():
    options = design_choices.Arguments(eta=5.0, dataset_path="toy.npz")
    variants = design_choices.variants(options)
    for title, name in (("sigma_max", "sigma_max"), ("lambda_flow", "lambda_flow")):
        default, letter = DIFFERENCES[name]
        assert variants[f"default, {title} {letter:g}"].changes == {name: letter}
        assert variants[f"letter, {title} {default:g}"].changes[name] == default


def test_design_choices_quick(tmp_path, capsys):
    argv = ("--quick", "--num-updates", "8", "--out", tmp_path, "--family", "letter")
    assert call(design_choices, *argv) == 0
    table = json.loads((tmp_path / "design_choices.json").read_text())["variants"]
    assert [*table] == [
        "letter",
        "letter, pseudo-Huber",
        "letter, 1/(t - u)",
        "letter, flow weighted",
    ]
    for row in table.values():  # in spite of --literal, which alone holds nothing out
        assert [*row["energy_score"]] == ["1", "2", "5"] and all(row["energy_score"].values())
    assert is_png(tmp_path / "design_choices.png")
    assert "| letter, pseudo-Huber | " in capsys.readouterr().out


def test_design_choices_draws_scores_and_what_is_unknown(tmp_path):
    row = {"energy_score": {"1": [0.5, 0.1], "5": [0.4, 0]}, "normalized_score": [50.0, 2.0]}
    unknown = {"energy_score": {}, "normalized_score": None}
    table = {"default": row, "default, strict s": unknown, "letter, flow weighted": row}
    design_choices.draw(table, tmp_path / "x.png", "title", None)
    assert is_png(tmp_path / "x.png")


# ---- horizon -----------------------------------------------------------------------------------


def test_the_energy_score_at_every_k_is_that_of_the_loaded_policy(tmp_path, capsys):
    assert call(horizon, "--quick", "--out", tmp_path) == 0
    (row,) = json.loads((tmp_path / "horizon.json").read_text())["variants"].values()
    (folder,) = row["run_dirs"]
    state = gtp.load_checkpoint(tmp_path / folder)
    args = gtp.Args(**state["results"]["args"])
    nets = gtp.load_networks(state, args)
    _, holdout, _ = gtp.load_data(args)
    noise = torch.randn((16, 2000, 2), generator=torch.Generator().manual_seed(0))
    for k in (1, 2, 3, 4, 5):
        samples = gtp.policy_samples(nets, holdout["observations"], noise, k, args)
        score = gtp.energy_score(samples, holdout["actions"]).item()
        assert row["energy_score"][str(k)] == [pytest.approx(score, rel=1e-5), 0]
        act = gtp.load_policy(folder, num_steps=k)
        assert row["off_mode"][str(k)] == [toy.metrics(act)["off_mode"], 0]
    assert len({mean for mean, _ in row["energy_score"].values()}) == 5
    assert is_png(tmp_path / "horizon.png") and "| 4 | " in capsys.readouterr().out
    assert 3 not in gtp.EVALUATION_STEPS  # put back


def test_retraining_puts_k_into_the_td_target_and_keeps_the_first_run(tmp_path, dataset):
    argv = ("--quick", "--num-updates", "8", "--out", tmp_path, "--eta", "1")
    argv += ("--dataset-path", dataset)
    assert call(horizon, *argv) == 0 and call(horizon, *argv, "--retrain") == 0
    table = json.loads((tmp_path / "horizon.json").read_text())["variants"]
    assert len([*tmp_path.glob("*/results.json")]) == 5
    targets = set()
    for k, title in horizon.TITLES.items():
        file = tmp_path / table[title]["run_dirs"][0] / "results.json"
        results = json.loads(file.read_text())
        assert results["args"]["num_steps"] == k
        targets.add(results["losses"][-1]["target_q"])
    assert len(targets) == 5


def test_curves_take_every_k_from_one_run_and_from_its_own():
    rows = {k: {str(j): [10 * k + j, 0] for j in horizon.STEPS} for k in horizon.STEPS}
    table = {horizon.TITLES[k]: {"energy_score": row} for k, row in rows.items()}
    once, same = horizon.curves(table)["energy_score"].values()
    assert {k: mean for k, (mean, _) in once.items()} == {1: 51, 2: 52, 3: 53, 4: 54, 5: 55}
    assert {k: mean for k, (mean, _) in same.items()} == {1: 11, 2: 22, 3: 33, 4: 44, 5: 55}
    once_alone = horizon.curves({horizon.TITLES[5]: table[horizon.TITLES[5]]})["energy_score"]
    assert [*once_alone.values()] == [once]


def test_a_trained_diffusion_policy_acts_with_its_own_steps(small):
    """No other number of them can be asked for."""
    title = next(
        title for title, row in inference_time.POLICIES.items() if row[0] == "diffusion_ql"
    )
    args = small(script=dql, num_steps=inference_time.POLICIES[title][1], num_updates=2)
    dql.train(args)
    policy = inference_time.trained_policy(title, [(args.run_dir, args)], "cpu")
    assert policy.trained and policy.acts[0](np.zeros((4, 3))).shape == (4, 2)


@pytest.mark.parametrize(
    ("env_id", "name"),
    [
        ("hopper-medium-v2", "score"),
        ("multigoal-v0", "score"),
        ("antmaze-large-navigate-singletask-v0", "score"),
        ("Pendulum-v1", "return"),
        ("Hopper-v5", "return"),
    ],
)
def test_what_a_task_is_measured_by_has_its_name(env_id, name, tmp_path, monkeypatch, capsys):
    assert experiment.score_name(env_id) == name
    monkeypatch.setattr(horizon, "episode_score", lambda *given: 7.0)
    table = {horizon.TITLES[5]: {"counted": ["a"]}}
    horizon.episode_scores(table, horizon.Arguments(env_id=env_id))
    horizon.print_curves(horizon.curves(table), {})
    assert f"| {name}, trained once, K = 5 |" in capsys.readouterr().out
    row = {"milliseconds": [1, 1, 1], "ratio": [1], "paper_milliseconds": None}
    row |= {"paper_ratio": None, "trained": True, "score": [7.0, 0.0]}
    inference_time.print_policies({"a": row}, env_id)
    assert f"| weights | {name} |" in capsys.readouterr().out


def test_returns_at_every_k_are_those_of_the_loaded_policy(tmp_path, capsys):
    argv = ("--quick", "--out", tmp_path, "--env-id", "multigoal-v0", "--num-updates", "20")
    assert call(horizon, *argv, "--num-eval-episodes", "40") == 0
    (row,) = json.loads((tmp_path / "horizon.json").read_text())["variants"].values()
    (folder,) = row["run_dirs"]
    results = json.loads((tmp_path / folder / "results.json").read_text())
    assert row["score"]["5"] == [results["last"]["normalized_score"], 0]
    act = gtp.load_policy(folder, num_steps=2)
    scores = offline_tasks.evaluate("multigoal-v0", act, 40, 100)
    assert row["score"]["2"] == [scores["normalized_score"], 0]
    assert "paper" not in capsys.readouterr().out

    argv = ("--quick", "--out", tmp_path / "times", "--env-id", "multigoal-v0")
    argv += ("--checkpoints", tmp_path / folder, "--hidden-dim", 16)
    assert call(inference_time, *argv) == 0
    table = json.loads((tmp_path / "times/inference_time.json").read_text())["variants"]
    assert not any(row["paper_milliseconds"] for row in table.values())  # another task
    trained = [title for title, row in table.items() if row["trained"]]
    assert trained == ["GTP (T = 5)", "GTP (T = 2)"]
    assert all(table[title]["score"] for title in trained)


def test_the_papers_scores_stand_only_beside_d4rls_own_data():
    options = horizon.Arguments(env_id="hopper-medium-expert-v2")
    row = paper.TABLE_5["hopper-medium-expert-v2"]
    assert horizon.paper_scores(options) == {2: row["GTP (T=2)"], 5: row["GTP (T=5)"]}
    options.dataset_path = "other.hdf5"
    assert horizon.paper_scores(options) == {}
    assert horizon.paper_scores(horizon.Arguments(env_id="antmaze-umaze-v0")) == {}


# ---- inference time ----------------------------------------------------------------------------


def test_ratios_are_medians_over_the_rounds():
    times = {inference_time.BASE: np.array([[1.0, 3.0], [4.0, 4.0], [1.0, 1.0]])}
    times["GTP (T = 5)"] = np.array([[1.0], [6.0], [0.9]])  # ratios 0.5, 1.5, 0.9
    table = inference_time.summary(times, paper.TABLE_6)
    assert table["GTP (T = 5)"]["ratio"] == pytest.approx([0.9, 0.7, 1.2])
    assert table["GTP (T = 5)"]["milliseconds"][0] == 1.0
    assert table[inference_time.BASE]["ratio"] == [1, 1, 1]
    one, base = (float(paper.TABLE_6[k]) for k in ("GTP (T = 5)", inference_time.BASE))
    assert table["GTP (T = 5)"]["paper_ratio"] == pytest.approx(one / base)


def test_every_policy_acts_in_every_round():
    calls = []
    acts = {"a": [lambda obs: calls.append("a")], "b": [lambda obs: calls.append(obs.shape)] * 2}
    times = inference_time.measure(acts, 3, rounds=2, calls=4)
    assert [v.shape for v in times.values()] == [(2, 1), (2, 2)]
    assert all((v > 0).all() for v in times.values())
    assert calls == 2 * (5 * ["a"] + 10 * [(3,)])  # the first call of a turn is not timed


def test_inference_time_has_every_row(tmp_path, monkeypatch, capsys):
    options = inference_time.Arguments(hidden_dim=8, seeds=2)
    given = []  # the arguments of every policy
    for name in ("gtp_offline", "diffusion_ql", "consistency_ac"):
        script = importlib.import_module(name)

        def make_act(nets, args, seed, usual=script.make_act):
            given.append((args.num_steps, args.num_candidates))
            return usual(nets, args, seed)

        monkeypatch.setattr(script, "make_act", make_act)
    rows = inference_time.policies(options).values()
    cases = [(steps, candidates) for _, steps, candidates in inference_time.POLICIES.values()]
    assert given == [case for case in cases for _ in range(2)]
    for policy in rows:
        assert len(policy.acts) == 2 and not policy.trained
        assert policy.acts[0](np.zeros(17, np.float32)).shape == (6,)
    assert call(inference_time, "--quick", "--out", tmp_path) == 0
    table = json.loads((tmp_path / "inference_time.json").read_text())["variants"]
    chosen = {f"{method}, 50 candidates" for method in [*paper.TABLE_6][:2]}
    assert {*table} == {*paper.TABLE_6} | chosen
    for title, row in table.items():
        assert 0 < row["milliseconds"][1] <= row["milliseconds"][0] <= row["milliseconds"][2]
        assert (row["paper_milliseconds"] is None) == (title in chosen)
    out = capsys.readouterr().out
    assert all(f"| {title} | " in out for title in table) and "untrained" in out
    assert is_png(tmp_path / "inference_time.png")


# ---- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "argv", "message"),
    [
        (horizon, ["--retrain"], "--retrain with --eta 0: .*give --eta 5"),
        (horizon, ["--retrain", "--eta", "5"], "--retrain on the toy, .*; give --env-id"),
        (horizon, ["--seeds", "0"], "--seeds is 0"),
        (temperature, ["--eta", "5"], "--eta 5 is what is swept; give --etas 5"),
        (temperature, ["--etas", "-1"], "--etas has -1; give numbers from 0 to 1e.06"),
        (temperature, ["--etas", "1", "nan"], "--etas has nan; give numbers from 0"),
        (temperature, ["--etas", "inf"], "--etas has inf; give numbers from 0"),
        (temperature, ["--clips", "nan"], "--clips has nan; give numbers above 0, or inf"),
        (temperature, ["--clips", "0"], "--clips has 0; give numbers above 0, or inf"),
        (temperature, ["--clips"], "--clips is empty; give numbers above 0, or inf"),
        (temperature, ["--first-seed", str(2**63)], "--first-seed is 9223372036854775808: 3 seeds"),
        (horizon, ["--first-seed", str(2**63 - 2)], "--first-seed is 9223372036854775806: 3 seeds"),
        (temperature, ["--etas", "2", "2.0000001"], "--etas has 2 twice, .*; leave one out"),
        (temperature, ["--clips", "5", "inf", "inf"], "--clips has inf twice, .*; leave one out"),
        (inference_time, ["--rounds", "0"], "--rounds is 0; it must be at least 1"),
        (inference_time, ["--checkpoints", "nowhere"], "--checkpoints nowhere is no finished run"),
        (inference_time, ["--env-id", "hopper-v9"], "unknown env id 'hopper-v9'"),
        (inference_time, ["--env-id", ""], "--env-id is empty; give a task"),
        (inference_time, ["--hidden-dim", "0"], "--hidden-dim is 0; give a number from 1"),
        (inference_time, ["--hidden-dim", "-4"], "--hidden-dim is -4; give a number from 1"),
        (inference_time, ["--device", "cuda:99"], "cuda:99 is not to be had"),
        (design_choices, ["--only", "no such"], "--only no such is in none of default, "),
    ],
)
def test_bad_input_is_one_line(script, argv, message, tmp_path, capsys):
    out = tmp_path / "out"
    assert call(script, "--quick", "--out", out, *argv) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(message, error), error
    assert not out.exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "results.json cannot be read, it may be damaged"),
        ('{"algorithm": "gtp_offline"}', "results.json is not of a run: it has no status, seed"),
    ],
)
def test_the_results_of_a_trained_policy_are_checked(text, words, tmp_path, capsys):
    (tmp_path / "results.json").write_text(text)
    out = tmp_path / "out"
    assert call(inference_time, "--quick", "--checkpoints", tmp_path, "--out", out) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: --checkpoints {tmp_path}: ") and words in line
    assert not out.exists()


def test_a_trained_policy_has_a_task_and_a_checkpoint(small, tmp_path, capsys):
    args = small()
    gtp.train(args)
    argv = "--quick", "--checkpoints", args.run_dir, "--out", tmp_path / "out"
    assert call(inference_time, *argv) == 2
    assert f"--checkpoints {args.run_dir} has no task" in capsys.readouterr().err
    file = tmp_path / "run/results.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"env_id": paper.TABLE_6_TASK}))
    (tmp_path / "run/checkpoint.pt").unlink()
    assert call(inference_time, *argv) == 2
    assert f"{args.run_dir} holds no whole checkpoint" in capsys.readouterr().err


TRAINED = {  # what differs in the run `other`, and what is said of it
    "width": ({"seed": 1, "hidden_dim": 16}, "has --hidden-dim 16; give --hidden-dim 16"),
    "argument": ({"seed": 1, "lambda_flow": 3.0}, "has --lambda-flow 3.0, {first} has 10.0; name"),
    "data": ({"seed": 1}, "is of other data than the gtp_offline run before it; name runs of one"),
    "copy": ({}, "has the seed 0, as {first} has; name one of them"),
}


def trained(folder, sha256):
    """results.json as a finished run of the paper's task has it."""
    folder.mkdir()
    results = {"status": "finished", "seed": 0, "args": {}, "updates_per_second": 1.0}
    results |= {"algorithm": "gtp_offline", "env_id": paper.TABLE_6_TASK}
    (folder / "results.json").write_text(json.dumps(results | {"dataset": {"sha256": sha256}}))


@pytest.mark.parametrize("case", TRAINED)
def test_runs_of_a_row_differ_by_the_seed_alone(case, tmp_path, monkeypatch, capsys):
    changes, words = TRAINED[case]
    first, other = tmp_path / "first", tmp_path / "other"
    trained(first, "a")
    trained(other, "b" if case == "data" else "a")
    usual = gtp.default_args(env_id=paper.TABLE_6_TASK, device="cpu")
    changed = replace(usual, **changes)
    monkeypatch.setattr(gtp, "resume_args", lambda folder: changed if folder == other else usual)
    argv = "--checkpoints", first, other, "--out", tmp_path / "out"
    assert call(inference_time, *argv) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: --checkpoints {other} {words.format(first=first)}")
    assert not (tmp_path / "out").exists()


def test_runs_that_differ_where_they_may_are_one_row(tmp_path, monkeypatch):
    first, other = tmp_path / "first", tmp_path / "other"
    usual = gtp.default_args(env_id=paper.TABLE_6_TASK, device="cpu")
    others = replace(usual, seed=1, num_eval_episodes=3, eval_freq=7, run_dir="there", compile=True)
    inference_time.check_alike([(first, usual), (other, others)], 256)


def test_a_run_that_is_named_twice_is_refused_however_it_is_spelled(tmp_path, capsys):
    argv = "--checkpoints", tmp_path / "run", f"{tmp_path}/x/../run", "--out", tmp_path / "out"
    assert call(inference_time, *argv) == 2
    assert f"--checkpoints has {tmp_path}/x/../run twice" in capsys.readouterr().err


def test_the_time_is_not_measured_for_a_file_as_out(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(inference_time, "measure", lambda *given: pytest.fail("measured"))
    (tmp_path / "file").write_text("kept")
    for out in (tmp_path / "file", tmp_path / "file/x"):
        assert call(inference_time, "--quick", "--out", out) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line == f"error: --out {out}: {tmp_path}/file is no folder; name a folder"


def test_episodes_without_a_trained_policy_are_said_to_be_none(capsys):
    inference_time.check(inference_time.Arguments(num_eval_episodes=5))
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "warning: --num-eval-episodes 5 has no effect with no --checkpoints"
    inference_time.check(inference_time.Arguments())
    inference_time.check(inference_time.Arguments(num_eval_episodes=5, checkpoints=("a",)))
    assert not capsys.readouterr().err


def test_a_dataset_of_the_toys_name_is_not_the_toy(tmp_path):
    options = design_choices.Arguments(out=str(tmp_path), dataset_path=str(tmp_path / "toy.npz"))
    assert experiment.on_toy(options)
    assert not experiment.on_toy(replace(options, dataset_path="mine/toy.npz"))


@pytest.mark.parametrize(
    ("score", "returned", "head", "number"),
    [(50.0, 7.0, "score", "50.0 ± 0.0"), (None, -300.0, "return", "-300.0 ± 0.0")],
)
def test_episodes_of_a_task_without_a_score_show_their_return(
    score, returned, head, number, capsys
):
    last = {"normalized_score": score, "episodic_return": returned}
    run = {"seed": 0, "status": "finished", "run_dir": "", "updates_per_second": 1.0, "last": last}
    table = {"this": experiment.summary([run], toy_run=False)}
    assert table["this"]["episodic_return"] == [returned, 0]
    for print_table in (experiment.print_table, temperature.print_sweep):
        print_table(table)
        heads, _, row = capsys.readouterr().out.splitlines()
        assert f"| {head} |" in heads
        assert f"| {number} |" in row
