"""train() from end to end on a tiny dataset: results, determinism, interruptions, directories."""

import hashlib
import itertools
import json
import math
import os
import platform
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, differences, lasting, make_dataset, run_script

import gtp_offline as gtp
from gtp_offline import load_checkpoint, load_policy, resume_args, train

RESULT_KEYS = {
    "status",
    "algorithm",
    "env_id",
    "seed",
    "num_updates",
    "last",
    "best",
    "evaluations",
    "args",
    "versions",
    "dataset",
    "updates_per_second",
    "milliseconds_per_action",
    "command",
    "commit",
    "script_sha256",
    "machine",
    "evaluation_seconds",
    "updated",
}
BOOKKEEPING = {"update", "seconds", "losses", "exit_code", "variant", "best_by"}
EVALUATION_KEYS = {
    "update",
    "energy_score",
    "energy_score_by_steps",
    "normalized_score",
    "normalized_score_std",
    "episodic_return",
    "episodic_length",
    "goal_fractions",
}


def final_state(run_dir):
    """All that a run's checkpoint and its results.json hold, less what timing and place decide."""
    results = json.loads((Path(run_dir) / "results.json").read_text())
    return lasting({"state": load_checkpoint(Path(run_dir)), "results": results})


def networks(run_dir):
    return load_checkpoint(Path(run_dir))["nets"]


def strict_json(path):
    """NaN and Infinity are no JSON."""

    def refuse(constant):
        raise AssertionError(f"{constant} in {path}")

    return json.loads(path.read_text(), parse_constant=refuse)


def after(count, action, monkeypatch):
    """Do something at the count-th actor loss; the loss stays as it is."""
    original = gtp.actor_loss
    calls = []

    def watched(*inputs):
        calls.append(1)
        if len(calls) == count:
            action()
        return original(*inputs)

    monkeypatch.setattr(gtp, "actor_loss", watched)


@pytest.fixture(scope="module")
def multigoal(tmp_path_factory):
    """Run directory and results of 20 updates on multigoal-v0, with TensorBoard and pictures."""
    folder = tmp_path_factory.mktemp("multigoal")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("D4RL_DATASET_DIR", str(folder / "datasets"))
        args = replace(
            gtp.default_args("multigoal-v0", device="cpu"),
            run_dir=str(folder / "run"),
            num_updates=20,
            eval_freq=10,
            num_eval_episodes=40,
            batch_size=16,
            hidden_dim=16,
            eta=1.0,
            log_freq=5,
            num_holdout=50,
        )
        return folder / "run", train(args)


# ---- results ---------------------------------------------------------------------------------


def test_results_have_the_documented_keys_and_types(small, dataset, tmp_path):
    results = train(small(seed=3))
    assert results.keys() == RESULT_KEYS | BOOKKEEPING
    assert results["status"] == "finished" and results["exit_code"] == 0
    assert results["algorithm"] == "gtp_offline" and results["env_id"] is None
    assert results["seed"] == 3 and results["num_updates"] == 20
    assert results["updates_per_second"] > 0 and results["milliseconds_per_action"] > 0
    assert results["versions"]["torch"] == torch.__version__
    assert results["versions"]["numpy"] == np.__version__
    assert results["variant"] == ""
    with np.load(dataset) as file:
        ends = file["terminals"][:-1] > 0
        rewards = file["rewards"][:-1]
        going_on = rewards[~ends & (file["timeouts"][:-1] == 0)]
    largest = {"going_on": going_on.max(), "ending": rewards[ends].max()}
    assert results["dataset"] == {
        "largest_rewards": pytest.approx(largest),
        "path": str(dataset),
        "sha256": hashlib.sha256(dataset.read_bytes()).hexdigest(),
        "transitions": 234,  # 239 rows with a successor, less 5 timeouts
        "action_units": "unit",
        "action_bounds": [-1, 1],
    }
    assert strict_json(tmp_path / "run" / "results.json") == json.loads(json.dumps(results))


def test_evaluations_have_the_documented_keys_and_null_where_nothing_was_measured(small):
    """No task: no environment, so energy scores only."""
    results = train(small())
    for row in results["evaluations"]:
        assert row.keys() == EVALUATION_KEYS
        assert row["energy_score_by_steps"].keys() == {"1", "2", "5"}
        assert row["energy_score"] == row["energy_score_by_steps"]["5"] > 0
        unknown = EVALUATION_KEYS - {"update", "energy_score", "energy_score_by_steps"}
        assert all(row[key] is None for key in unknown)
    assert [row["update"] for row in results["evaluations"]] == [10, 20]
    assert results["last"] == results["evaluations"][-1]


@pytest.mark.parametrize(("num_steps", "keys"), [(1, {"1", "2"}), (3, {"1", "2", "3"})])
def test_energy_scores_are_measured_at_one_two_and_the_runs_own_steps(small, num_steps, keys):
    row = train(small(num_steps=num_steps, num_updates=2))["last"]
    assert row["energy_score_by_steps"].keys() == keys
    assert row["energy_score"] == row["energy_score_by_steps"][str(num_steps)]


def test_without_held_out_transitions_the_energy_score_is_null(small, tmp_path):
    """Also in the file, which stays valid JSON though --literal leaves the weights unclipped."""
    results = train(small(**gtp.LITERAL, literal=True, num_updates=2))
    assert results["last"]["energy_score"] is results["last"]["energy_score_by_steps"] is None
    written = strict_json(tmp_path / "run" / "results.json")
    assert written["last"]["energy_score"] is None
    assert written["args"]["max_weight"] == "inf" and results["args"]["max_weight"] == math.inf


def test_evaluation_is_every_twentieth_and_always_at_the_end(small):
    """45 updates: every 45 // 20 = 2, and the last."""
    results = train(small(num_updates=45, eval_freq=0))
    assert [row["update"] for row in results["evaluations"]] == [*range(2, 45, 2), 45]
    assert results["args"]["eval_freq"] == 2


@pytest.mark.parametrize("num_updates", [1, 3])
def test_fewer_than_eight_updates_train(small, num_updates):
    results = train(small(num_updates=num_updates, eval_freq=0))
    assert [row["update"] for row in results["evaluations"]] == [*range(1, num_updates + 1)]


def test_the_saved_arguments_are_those_that_ran(small):
    """eval_freq 0 is replaced by what it means; the given arguments stay as they were."""
    args = small(num_updates=40, eval_freq=0)
    before = replace(args)
    saved = train(args)["args"]
    assert saved == asdict(replace(args, eval_freq=2)) and args == before
    assert saved["eta"] == 5.0 and saved["huber_c"] == 0.03


def test_losses_are_means_over_the_updates_since_the_last_evaluation(small, monkeypatch):
    """Lines at 4, 8, 10, 12, 16 and 20, evaluations at 10 and 20."""
    seen = []
    update_networks = gtp.update_networks

    def watched(*inputs):
        metrics = update_networks(*inputs)
        seen.append({name: metric.item() for name, metric in metrics.items()})
        return metrics

    monkeypatch.setattr(gtp, "update_networks", watched)
    losses = train(small(log_freq=4))["losses"]
    assert len(losses) == 2
    for row, updates in zip(losses, (seen[:10], seen[10:]), strict=True):
        assert row.keys() == seen[0].keys()
        for name, mean in row.items():
            expected = np.mean([metrics[name] for metrics in updates])
            assert mean == pytest.approx(expected, rel=1e-5, abs=1e-6), name


def test_the_best_evaluation_is_the_one_of_the_highest_score(small, monkeypatch):
    """Scores 1, 3, 2: the second, though the third has the better energy score."""
    self_made = [(1.0, 0.5), (3.0, 0.6), (2.0, 0.1)]

    def evaluate(nets, args, holdout, update):
        score, energy = self_made[update // 5 - 1]
        row = dict.fromkeys(EVALUATION_KEYS) | {"update": update, "energy_score": energy}
        return row | {"normalized_score": score}

    monkeypatch.setattr(gtp, "evaluate", evaluate)
    results = train(small(num_updates=15, eval_freq=5))
    assert results["best"]["update"] == 10 and results["last"]["update"] == 15


def test_the_best_evaluation_without_a_task_is_the_one_of_the_lowest_energy_score(small):
    results = train(small(eval_freq=4, learning_rate=0.05))
    scores = [row["energy_score"] for row in results["evaluations"]]
    assert results["best"]["energy_score"] == min(scores) and len(set(scores)) > 1


def test_held_out_transitions_are_not_trained_on(small, monkeypatch):
    """23 of 234 (10 %) are kept out: 200 batches of 16 show 211 different observations."""
    seen, original = set(), gtp.actor_loss

    def watched(nets, obs, *rest):
        seen.update(map(tuple, obs.tolist()))
        return original(nets, obs, *rest)

    monkeypatch.setattr(gtp, "actor_loss", watched)
    train(small(num_updates=200, eval_freq=200, num_holdout=2000))
    assert 205 < len(seen) <= 211


def test_rewards_are_shifted_then_scaled(small, monkeypatch):
    """r' = 4 (r - 0.5), AntMaze's tuning."""
    seen, original = [], gtp.td_target

    def watched(critic_target, rewards, *rest):
        seen.extend(rewards.tolist())
        return original(critic_target, rewards, *rest)

    monkeypatch.setattr(gtp, "td_target", watched)
    train(small(num_updates=3, reward_scale=4.0, reward_shift=-0.5, td_target="policy"))
    possible = 4 * (make_dataset()["rewards"].astype(np.float64) - 0.5)
    distance = np.abs(np.array(seen)[:, None] - possible).min(1)
    assert len(seen) == 48 and distance.max() < 1e-5


def test_the_default_run_directory_is_named_after_file_script_and_seed(
    small, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    train(small(run_dir="", num_updates=1, seed=7))
    (folder,) = Path("runs").iterdir()
    stem, script, seed, stamp = folder.name.split("__")
    assert (stem, script, seed) == ("tiny", "gtp_offline", "7") and stamp.isdigit()
    assert {p.name for p in folder.iterdir()} >= {"checkpoint.pt", "results.json"}


def test_runs_that_begin_in_the_same_second_get_a_directory_each(small, tmp_path, monkeypatch):
    """Also the one that begins while another reads its data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gtp.time, "time", lambda: 1000.0)
    args = small(run_dir="", num_updates=1)
    load_data = gtp.load_data
    inner = []

    def slow_load_data(given):
        data = load_data(given)
        if len(inner) < 2:
            inner.append(None)
            inner[0] = train(args)
        return data

    monkeypatch.setattr(gtp, "load_data", slow_load_data)
    outer = train(args)
    names = sorted(path.name for path in Path("runs").iterdir())
    first = "tiny__gtp_offline__0__1000"
    assert names == [first, f"{first}-2", f"{first}-2-2"]
    for results in (outer, inner[0]):
        assert strict_json(Path(results["args"]["run_dir"], "results.json"))["status"] == "finished"


def test_a_run_directory_that_cannot_be_made_is_refused(small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("runs").touch()
    assert refused(small(run_dir=""), "--run-dir", "runs") is gtp.InputError


def test_results_say_what_ran_and_where(small, monkeypatch):
    words = ["ablations/my file.py", "--eta", "5"]
    monkeypatch.setattr(sys, "argv", words)
    before = time.time()
    results = train(small(num_updates=1))
    assert results["command"] == "python 'ablations/my file.py' --eta 5"
    git = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    found = subprocess.run(git, capture_output=True, text=True)
    assert results["commit"] == (found.stdout.strip() or None)
    content = (ROOT / "gtp_offline.py").read_bytes()
    assert results["script_sha256"] == hashlib.sha256(content).hexdigest()
    assert results["machine"] == platform.platform()
    assert int(before) <= results["updated"] <= time.time()


def test_outside_git_and_without_git_the_commit_is_null(small, tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setattr(gtp, "__file__", str(tmp_path / "gtp_offline.py"))
    (tmp_path / "gtp_offline.py").write_text("# a copy")
    assert train(small("outside", num_updates=1))["commit"] is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert train(small("without", num_updates=1))["commit"] is None


def test_seconds_add_up_over_a_resume_and_are_apart_from_those_of_evaluations(small, monkeypatch):
    """By a clock that ticks when it is read: one tick an update, one an evaluation."""
    ticks = itertools.count()
    monkeypatch.setattr(gtp.time, "perf_counter", lambda: float(next(ticks)))
    with monkeypatch.context() as patch:
        after(13, lambda: os.kill(os.getpid(), signal.SIGTERM), patch)
        results = train(small())
    ran = results["update"]
    assert 13 <= ran < 20 and results["status"] == "interrupted"
    assert (results["seconds"], results["evaluation_seconds"]) == (ran, 1)
    assert results["updates_per_second"] == 1
    results = train(resume_args(small().run_dir))
    assert (results["seconds"], results["evaluation_seconds"]) == (20, 2)
    assert results["updates_per_second"] == 1


def test_results_are_written_at_a_line_of_the_log_but_at_most_every_ten_seconds(small, monkeypatch):
    """Three seconds an update, a line every two: at 12 and 24 seconds, and at the end."""
    clock = [1000.0]
    monkeypatch.setattr(gtp.time, "time", lambda: clock[0])
    update_networks = gtp.update_networks

    def slow_update(*inputs):
        clock[0] += 3
        return update_networks(*inputs)

    written = []
    write_json = gtp.write_json

    def watched(path, content):
        written.append((content["update"], content["updated"]))
        write_json(path, content)

    monkeypatch.setattr(gtp, "update_networks", slow_update)
    monkeypatch.setattr(gtp, "write_json", watched)
    train(small(num_updates=10, eval_freq=10, log_freq=2))
    assert written[:3] == [(0, 1000), (4, 1012), (8, 1024)]
    assert written[3:] and set(written[3:]) == {(10, 1030)}


# ---- multi-goal, TensorBoard and pictures ----------------------------------------------------


def test_a_multigoal_run_measures_scores_and_draws_both_pictures(multigoal):
    run_dir, results = multigoal
    row = results["last"]
    assert results["env_id"] == "multigoal-v0" and results["dataset"]["transitions"] > 30_000
    assert not [key for key in EVALUATION_KEYS if row[key] is None]
    assert len(row["goal_fractions"]) == 4 and 0 <= sum(row["goal_fractions"]) <= 1 + 1e-9
    assert row["normalized_score"] == pytest.approx(100 * row["episodic_return"])
    for picture in ("learning_curve.png", "trajectories.png"):
        assert (run_dir / picture).read_bytes().startswith(b"\x89PNG")


def test_tensorboard_has_every_documented_tag(multigoal):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(multigoal[0])).Reload()
    losses = ["actor", "consistency", "flow", "critic", "q_mean", "target_q"]
    losses += ["advantage_weight_max", "actor_grad_norm", "critic_grad_norm"]
    scores = ["normalized_score", "normalized_score_std", "episodic_return", "episodic_length"]
    expected = {f"losses/{name}" for name in losses} | {f"eval/{name}" for name in scores}
    expected |= {"charts/learning_rate", "charts/updates_per_second"}
    assert expected <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("losses/actor")] == [5, 10, 15, 20]
    assert [event.step for event in events.Scalars("eval/normalized_score")] == [10, 20]
    rate = events.Scalars("charts/learning_rate")[-1].value
    assert rate == pytest.approx(multigoal[1]["args"]["learning_rate"])


def test_the_logger_can_be_switched_off(small, tmp_path):
    train(small(num_updates=1))
    assert not list((tmp_path / "run").glob("events*"))


# ---- determinism -----------------------------------------------------------------------------


def test_the_same_seed_gives_identical_weights_and_losses(small, monkeypatch):
    """Bit for bit, on the CPU; another seed gives others."""
    losses, original = [], gtp.actor_loss

    def watched(*inputs):
        loss, metrics = original(*inputs)
        losses.append(loss.item())
        return loss, metrics

    monkeypatch.setattr(gtp, "actor_loss", watched)
    first, second, other = (small(name, seed=seed) for name, seed in [("a", 1), ("b", 1), ("c", 2)])
    for args in (first, second, other):
        train(args)
    assert losses[:20] == losses[20:40] and not set(losses[:20]) & set(losses[40:])
    assert differences(final_state(first.run_dir), final_state(second.run_dir)) == []
    assert differences(networks(first.run_dir), networks(other.run_dir))


def test_evaluating_more_often_does_not_change_training(small):
    often, seldom = small("often", eval_freq=3), small("seldom", eval_freq=20)
    rows = train(often)["evaluations"], train(seldom)["evaluations"]
    last = [{k: row[-1][k] for k in EVALUATION_KEYS} for row in rows]
    assert len(rows[0]) == 7 and last[0] == last[1]
    assert differences(networks(often.run_dir), networks(seldom.run_dir)) == []


def test_evaluating_a_policy_on_a_task_does_not_change_training(multigoal, small, tmp_path):
    """The same run on multigoal's file without the task has the same weights."""
    run_dir, results = multigoal
    path = results["dataset"]["path"]
    names = ("eta", "learning_rate", "batch_size", "num_holdout", "normalize_observations")
    names += ("ema_every",)
    kept = {name: results["args"][name] for name in names}
    train(small("plain", dataset_path=path, **kept))
    assert differences(networks(run_dir), networks(tmp_path / "plain")) == []


def test_the_callers_generators_are_not_needed(small):
    """Whatever was drawn before, a run depends on its seed alone."""
    train(small("a"))
    torch.manual_seed(99)
    np.random.seed(99)
    random.seed(99)
    train(small("b"))
    a, b = (small(name).run_dir for name in "ab")
    assert differences(networks(a), networks(b)) == []


@pytest.mark.parametrize("name", ["actor", "critic"])
def test_the_averages_follow_the_networks_at_the_polyak_rate(small, name):
    """After one update: tau new + (1 - tau) initial; the initial weights are those of tau = 0, and
    with tau = 1 the average is the network itself (Algorithm 1, line 9)."""
    average = {"actor": "actor_ema", "critic": "critic_target"}[name]
    nets = {}
    for tau in (0.0, 0.25, 1.0):
        args = small(f"tau{tau}", tau=tau, ema_every=1, num_updates=1)
        train(args)
        nets[tau] = networks(args.run_dir)
    keys = [key for key in nets[0.0] if key.startswith(f"{name}.") and "obs_" not in key]
    assert len(keys) >= 8
    for key in keys:
        averaged = key.replace(f"{name}.", f"{average}.", 1)
        new, initial = nets[0.25][key], nets[0.0][averaged]
        assert torch.equal(nets[1.0][averaged], new) and not torch.equal(new, initial)
        torch.testing.assert_close(nets[0.25][averaged], 0.25 * new + 0.75 * initial)


# ---- checkpoints -----------------------------------------------------------------------------


def test_the_checkpoint_loads_with_weights_only(small, tmp_path):
    train(small(num_updates=2))
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert state["results"]["update"] == 2 and state["results"]["args"]["hidden_dim"] == 16


def test_a_policy_acts_from_a_run_in_three_lines(small, tmp_path):
    """For one observation and for many, in [-1, 1], and alike for the same seed."""
    train(small(num_updates=2))
    act = load_policy(tmp_path / "run")
    action = act(np.zeros(3))
    assert action.shape == (2,) and np.abs(action).max() <= 1
    many = act(np.zeros((500, 3)))
    assert many.shape == (500, 2) and np.abs(many).max() <= 1 and many.std(0).min() > 0.01
    again = load_policy(tmp_path / "run" / "checkpoint.pt")
    assert np.array_equal(again(np.zeros(3)), action)
    assert not np.array_equal(load_policy(tmp_path / "run", seed=1)(np.zeros(3)), action)


@pytest.mark.parametrize("eval_actor", ["ema", "online"])
def test_the_policy_is_the_actor_that_the_run_evaluates(small, tmp_path, eval_actor):
    """With tau = 0 the average never moves: its actions are those of another run's average, and the
    trained actor's are not."""
    changes = dict(tau=0.0, eval_actor=eval_actor)
    for name, rate in (("a", 0.01), ("b", 0.02)):
        train(small(name, learning_rate=rate, **changes))
    a, b = (load_policy(tmp_path / name)(np.zeros((50, 3))) for name in "ab")
    assert np.array_equal(a, b) == (eval_actor == "ema")


VARIANTS = [
    {},
    {"eta": 0.0},
    {"value": "policy", "td_target": "policy", "max_q_backup": True},
    {"eta": 0.0, "num_candidates": 3},
]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("variant", VARIANTS)
def test_an_interrupted_run_ends_like_an_uninterrupted_one(
    small, tmp_path, monkeypatch, variant, number
):
    """Interrupted in update 7 of 20, between two lines of the log: networks, optimisers, generator,
    evaluations and mean losses are equal bit for bit, in the checkpoint and in results.json."""
    train(small("whole", **variant))
    with monkeypatch.context() as patch:
        after(7, lambda: os.kill(os.getpid(), number), patch)
        results = train(small("parts", **variant))
    assert results["status"] == "interrupted" and results["exit_code"] == 128 + number
    saved = load_checkpoint(tmp_path / "parts")["results"]["update"]
    assert 7 <= saved == results["update"] < 10
    resumed = train(resume_args(tmp_path / "parts"))
    assert resumed["status"] == "finished" and resumed["exit_code"] == 0
    assert [row["update"] for row in resumed["evaluations"]] == [10, 20]
    assert differences(final_state(tmp_path / "whole"), final_state(tmp_path / "parts")) == []


def test_a_signal_during_an_evaluation_loses_nothing(small, tmp_path, monkeypatch):
    """The evaluation at update 10 is between checkpoints; it is kept, and the run is resumed."""
    args, original = small("parts", checkpoint_freq=15), gtp.evaluate
    train(replace(args, run_dir=str(tmp_path / "whole")))

    def evaluate(*inputs):
        os.kill(os.getpid(), signal.SIGTERM)
        return original(*inputs)

    with monkeypatch.context() as patch:
        patch.setattr(gtp, "evaluate", evaluate)
        results = train(args)
    assert results["status"] == "interrupted" and results["exit_code"] == 143
    assert load_checkpoint(tmp_path / "parts")["results"]["update"] == results["update"] >= 10
    train(resume_args(args.run_dir))
    assert differences(final_state(tmp_path / "whole"), final_state(tmp_path / "parts")) == []


def test_signals_act_as_before_once_training_is_over(small, monkeypatch):
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    train(small("a", num_updates=1))
    after(1, lambda: os.kill(os.getpid(), signal.SIGTERM), monkeypatch)
    train(small("b"))
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_second_signal_ends_the_process_as_ever(small, monkeypatch):
    """Whoever presses Ctrl-C twice does not wait for the end of an evaluation."""
    handlers = []

    def interrupt():
        os.kill(os.getpid(), signal.SIGINT)
        handlers.append(signal.getsignal(signal.SIGINT))

    after(1, interrupt, monkeypatch)
    assert train(small())["status"] == "interrupted"
    assert handlers == [signal.SIG_DFL]


def test_training_in_a_thread_leaves_signals_alone(small):
    """Python lets only the main thread receive them."""
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    results = {}
    thread = threading.Thread(target=lambda: results.update(train(small())))
    thread.start()
    thread.join()
    assert results["status"] == "finished"
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_finished_run_resumes_to_the_same_end(small, tmp_path):
    first = train(small())
    again = train(resume_args(tmp_path / "run"))
    assert again["status"] == "finished" and again["exit_code"] == 0
    assert again["evaluations"] == first["evaluations"] and again["last"] == first["last"]


def test_a_damaged_checkpoint_is_replaced_by_the_one_before(small, tmp_path, capsys):
    """Cut short by a full disk: the run goes on from the checkpoint before, with a warning."""
    train(small("whole", checkpoint_freq=5))
    train(small("parts", checkpoint_freq=5))
    path = tmp_path / "parts" / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:-1000])
    train(resume_args(tmp_path / "parts"))
    assert f"warning: checkpoint {path} is damaged\n" in capsys.readouterr().err
    assert differences(final_state(tmp_path / "whole"), final_state(tmp_path / "parts")) == []


INTERRUPTED = """
import os
import sys
import gtp_offline

original = gtp_offline.update_networks
calls = []

def update_networks(*inputs):
    calls.append(1)
    if len(calls) == 30:
        os.kill(os.getpid(), {number})
    return original(*inputs)

gtp_offline.update_networks = update_networks
sys.argv[0] = "gtp_offline.py"
sys.exit(gtp_offline.main())
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_program_resumes_in_another_process(number, small, tmp_path):
    """A signal in update 30 of 60. Ctrl-C is exit code 130 and says how to go on; what a killed
    process has locked is free."""
    changes = {"num_updates": 60, "checkpoint_freq": 4, "eval_freq": 20}
    train(small("whole", **changes))
    flags = ["--num-holdout=24", "--batch-size=16", "--hidden-dim=16", "--device=cpu"]
    flags += [f"--{name.replace('_', '-')}={value}" for name, value in changes.items()]
    flags += ["--no-tensorboard", "--dataset-path", small().dataset_path, "--run-dir", "parts"]
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})" + INTERRUPTED.format(number=int(number))
    done = subprocess.run(
        **run_script("-c", code, *flags, folder=tmp_path, capture_output=True, timeout=120)
    )
    written = strict_json(tmp_path / "parts" / "results.json")
    if number == signal.SIGINT:
        assert done.returncode == 130, done.stderr
        assert "Traceback" not in done.stderr
        assert "gtp_offline.py --resume parts" in done.stdout + done.stderr
        assert written["status"] == "interrupted" and written["exit_code"] == 130
    else:
        assert done.returncode == -signal.SIGKILL and written["status"] == "running"
    assert train(resume_args(tmp_path / "parts"))["status"] == "finished"
    assert differences(final_state(tmp_path / "whole"), final_state(tmp_path / "parts")) == []


def test_sigterm_ends_the_program_with_143(small, monkeypatch, capsys):
    """main() returns the exit code and has printed how to go on."""
    after(3, lambda: os.kill(os.getpid(), signal.SIGTERM), monkeypatch)
    flags = ["--dataset-path", small().dataset_path, "--run-dir", small().run_dir]
    flags += ["--num-updates", "20", "--batch-size", "16", "--hidden-dim", "16"]
    monkeypatch.setattr(sys, "argv", ["gtp_offline.py", "--no-tensorboard", *flags])
    assert gtp.main() == 143
    printed = capsys.readouterr()
    assert f"--resume {small().run_dir}" in printed.out + printed.err


# ---- run directories -------------------------------------------------------------------------


def refused(args, *fragments):
    """train raises an InputError of one line with the fragments -> the kind of error."""
    with pytest.raises(gtp.InputError) as caught:
        train(args)
    message = str(caught.value)
    assert "\n" not in message and all(str(f) in message for f in fragments), message
    return caught.type


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_directory_in_use_is_refused(small, monkeypatch, resume):
    """By a second start before the first checkpoint, and by a second --resume after it."""
    args = small(checkpoint_freq=5)
    kinds = []

    def second_start():
        second = resume_args(args.run_dir) if resume else args
        kinds.append(refused(second, args.run_dir, "use"))

    after(8 if resume else 2, second_start, monkeypatch)
    assert train(args)["status"] == "finished" and kinds == [gtp.InputError]


def test_a_directory_with_a_run_is_refused(small, tmp_path):
    train(small(num_updates=1))
    before = (tmp_path / "run" / "checkpoint.pt").read_bytes()
    assert refused(small(num_updates=1), tmp_path / "run", "--resume") is gtp.InputError
    assert (tmp_path / "run" / "checkpoint.pt").read_bytes() == before


def test_a_directory_without_a_checkpoint_may_be_reused(small, tmp_path, monkeypatch):
    """What a run leaves that failed in its first update does not stand in the way."""

    def fail():
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        after(1, fail, patch)
        with pytest.raises(RuntimeError, match="out of memory"):
            train(small())
    assert (tmp_path / "run").exists() and not (tmp_path / "run" / "checkpoint.pt").exists()
    assert train(small())["status"] == "finished"


def test_an_exception_is_recorded_as_a_failure_and_raised(small, tmp_path, monkeypatch):
    """With what was known by then; the checkpoint before goes on."""

    def fail():
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        after(13, fail, patch)
        with pytest.raises(RuntimeError, match="out of memory"):
            train(small(checkpoint_freq=5))
    results = strict_json(tmp_path / "run" / "results.json")
    assert results["status"] == "failed" and "exit_code" not in results
    assert [row["update"] for row in results["evaluations"]] == [10]
    assert train(resume_args(tmp_path / "run"))["status"] == "finished"
    assert strict_json(tmp_path / "run" / "results.json")["status"] == "finished"


def test_a_lone_checkpoint_before_the_last_is_a_run_too(small, tmp_path):
    """As a crash between two renamings leaves it: a new run does not take its place."""
    train(small(num_updates=2, checkpoint_freq=1))
    (tmp_path / "run" / "checkpoint.pt").unlink()
    assert refused(small(), tmp_path / "run", "--resume") is gtp.InputError


# ---- divergence and ablations ----------------------------------------------------------------


def nan_from(count, monkeypatch):
    original = gtp.actor_loss
    calls = []

    def diverging(*inputs):
        calls.append(1)
        loss, metrics = original(*inputs)
        factor = math.nan if len(calls) >= count else 1.0
        return loss * factor, metrics | {"actor": loss * factor}

    monkeypatch.setattr(gtp, "actor_loss", diverging)


def test_a_diverged_run_keeps_its_last_good_checkpoint(small, tmp_path, monkeypatch):
    """NaN in update 13, checkpoints at 5 and 10: status, exit code 1, weights of update 10."""
    nan_from(13, monkeypatch)
    results = train(small(checkpoint_freq=5))
    assert results["status"] == "diverged" and results["exit_code"] == 1
    assert strict_json(tmp_path / "run" / "results.json")["status"] == "diverged"
    state = load_checkpoint(tmp_path / "run")
    assert state["results"]["update"] == 10
    assert all(tensor.isfinite().all() for tensor in state["nets"].values())


def test_divergence_is_the_exit_code_of_the_program(small, monkeypatch):
    nan_from(1, monkeypatch)
    flags = ["--num-updates", "2", "--dataset-path", small().dataset_path, "--no-tensorboard"]
    monkeypatch.setattr(sys, "argv", ["gtp_offline.py", *flags, "--run-dir", small().run_dir])
    assert gtp.main() == 1


def test_divergence_is_noticed_before_a_diverged_policy_acts(multigoal, small, monkeypatch):
    """On a task, with an evaluation between checkpoints and lines of the log."""
    nan_from(2, monkeypatch)
    path = multigoal[1]["dataset"]["path"]
    changes = dict(dataset_path=path, env_id="multigoal-v0", num_eval_episodes=5, eta=0.0)
    results = train(small(eval_freq=5, checkpoint_freq=20, **changes))
    assert results["status"] == "diverged" and results["exit_code"] == 1


def test_an_ablation_replaces_one_function(small, monkeypatch):
    """train calls actor_loss through the module's global name, once an update, with the networks,
    a batch, t > u >= s, weights without gradient and the resolved arguments."""
    calls = []

    def replaced(nets, obs, actions, noise, t, u, s, weights, args):
        calls.append(args.eta)
        assert obs.shape == (16, 3) and actions.shape == noise.shape == (16, 2)
        assert t.shape == u.shape == s.shape == (16, 1) and (t > u).all() and (u >= s).all()
        assert weights.shape == (16,) and not weights.requires_grad
        assert (weights >= 0).all() and weights.mean().item() == pytest.approx(1)
        loss = nets["actor"].inst_map(obs, actions + t * noise, t).square().mean()
        return loss, {"actor": loss, "shrinkage": loss}

    monkeypatch.setattr(gtp, "actor_loss", replaced)
    results = train(small())
    assert calls == [5.0] * 20 and results["status"] == "finished"


@pytest.mark.parametrize(("num_holdout", "said"), [(0, True), (24, False)])
def test_a_run_that_measures_nothing_says_so(num_holdout, said, small, capsys):
    gtp.train(small(num_updates=1, num_holdout=num_holdout))
    assert ("nothing will be measured: no --env-id" in capsys.readouterr().err) is said
