"""train() from end to end on a tiny dataset: results, determinism, checkpoints, interruptions."""

import hashlib
import inspect
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import tyro
from conftest import ROOT, differences, make_dataset, run_script

import gtp_offline as gtp
from gtp_offline import Args, load_checkpoint, load_policy, resolve_args, train

RESULT_KEYS = {
    "status", "algorithm", "env_id", "seed", "num_updates", "last", "best", "evaluations", "args",
    "versions", "dataset", "updates_per_second", "milliseconds_per_action",
}  # fmt: skip
BOOKKEEPING = {
    "update",
    "seconds",
    "losses",
    "exit_code",
    "diverged",
}  # what a resumed run and main() need
EVALUATION_KEYS = {
    "update", "energy_score", "energy_score_by_steps", "normalized_score", "normalized_score_std",
    "episodic_return", "episodic_length", "goal_fractions",
}  # fmt: skip
TIMINGS = {
    "seconds", "updates_per_second", "milliseconds_per_action", "charts/updates_per_second",
}  # fmt: skip
PLACES = {"run_dir", "resume", "status", "exit_code"}


def without(state, *names):
    """A nested state less the given keys at every depth."""
    if isinstance(state, dict):
        return {k: without(v, *names) for k, v in state.items() if k not in names}
    return [without(v, *names) for v in state] if isinstance(state, list) else state


def final_state(run_dir):
    """All that a run's checkpoint holds, less what timing and place decide, and mean losses."""
    return without(load_checkpoint(Path(run_dir)), *TIMINGS, *PLACES, "losses")


def networks(run_dir):
    return load_checkpoint(Path(run_dir))["nets"]


def strict_json(path):
    """NaN and Infinity are no JSON."""

    def refuse(constant):
        raise AssertionError(f"{constant} in {path}")

    return json.loads(path.read_text(), parse_constant=refuse)


def after(count, action, monkeypatch):
    """Do something at the count-th actor loss; the loss stays as it is."""
    calls, original = [0], gtp.actor_loss

    def watched(*inputs):
        calls[0] += 1
        if calls[0] == count:
            action()
        return original(*inputs)

    monkeypatch.setattr(gtp, "actor_loss", watched)


@pytest.fixture(scope="module")
def multigoal(tmp_path_factory):
    """Run directory and results of 20 updates on multigoal-v0, with TensorBoard and pictures."""
    folder = tmp_path_factory.mktemp("multigoal")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("D4RL_DATASET_DIR", str(folder / "datasets"))
        args = Args(
            env_id="multigoal-v0", run_dir=str(folder / "run"), num_updates=20, eval_freq=10,
            num_eval_episodes=40, batch_size=16, hidden_dim=16, eta=1.0, log_freq=5,
            num_holdout=50, device="cpu",
        )  # fmt: skip
        return folder / "run", train(args)


# ---- results ---------------------------------------------------------------------------------


def test_results_have_the_documented_keys_and_types(small, dataset, tmp_path):
    results = train(small(seed=3))
    assert RESULT_KEYS <= results.keys() <= RESULT_KEYS | BOOKKEEPING
    assert results["status"] == "finished" and results["exit_code"] == 0
    assert results["algorithm"] == "gtp_offline" and results["env_id"] is None
    assert results["seed"] == 3 and results["num_updates"] == 20
    assert results["updates_per_second"] > 0 and results["milliseconds_per_action"] > 0
    assert results["versions"]["torch"] == torch.__version__
    assert results["versions"]["numpy"] == np.__version__
    assert results["dataset"] == {
        "path": str(dataset),
        "sha256": hashlib.sha256(dataset.read_bytes()).hexdigest(),
        "transitions": 234,  # 239 rows with a successor, less 5 timeouts
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
    results = train(small(literal=True, num_holdout=None, num_updates=2))
    assert results["last"]["energy_score"] is results["last"]["energy_score_by_steps"] is None
    assert strict_json(tmp_path / "run" / "results.json")["last"]["energy_score"] is None


def test_evaluation_is_every_twentieth_and_always_at_the_end(small):
    """45 updates: every 45 // 20 = 2, and the last."""
    results = train(small(num_updates=45, eval_freq=None))
    assert [row["update"] for row in results["evaluations"]] == [*range(2, 45, 2), 45]
    assert results["args"]["eval_freq"] == 2


@pytest.mark.parametrize("num_updates", [1, 3])
def test_fewer_than_eight_updates_train(small, num_updates):
    results = train(small(num_updates=num_updates, eval_freq=None))
    assert [row["update"] for row in results["evaluations"]] == [*range(1, num_updates + 1)]


def test_the_saved_arguments_are_the_resolved_ones(small):
    args = small()
    saved = train(args)["args"]
    assert saved == asdict(resolve_args(args))
    assert saved["eta"] == 5.0 and saved["huber_c"] == 0.03
    assert not [key for key in [*DEFAULT, "num_updates", "eval_freq"] if saved[key] is None]


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
    train(small(num_updates=3, reward_scale=4.0, reward_shift=-0.5))
    possible = 4 * (make_dataset()["rewards"].astype(np.float64) - 0.5)
    distance = np.abs(np.array(seen)[:, None] - possible).min(1)
    assert len(seen) == 48 and distance.max() < 1e-5


def test_the_default_run_directory_is_named_after_file_script_and_seed(
    small, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    train(small(run_dir=None, num_updates=1, seed=7))
    (folder,) = Path("runs").iterdir()
    stem, script, seed, stamp = folder.name.split("__")
    assert (stem, script, seed) == ("tiny", "gtp_offline", "7") and stamp.isdigit()
    assert {p.name for p in folder.iterdir()} >= {"checkpoint.pt", "results.json"}


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
    kept = {k: results["args"][k] for k in ("eta", "learning_rate", "batch_size", "num_holdout")}
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
        args = small(f"tau{tau}", tau=tau, num_updates=1)
        train(args)
        nets[tau] = networks(args.run_dir)
    keys = [key for key in nets[0.0] if key.startswith(f"{name}.")]
    assert keys
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
    {}, {"eta": 0.0}, {"value": "policy", "max_q_backup": True}, {"eta": 0.0, "num_candidates": 3},
]  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("variant", VARIANTS)
def test_an_interrupted_run_ends_like_an_uninterrupted_one(
    small, tmp_path, monkeypatch, variant, number
):
    """Interrupted in update 7 of 20, between two checkpoints: networks, optimisers, generators and
    evaluations are equal bit for bit."""
    train(small("whole", **variant))
    with monkeypatch.context() as patch:
        after(7, lambda: os.kill(os.getpid(), number), patch)
        results = train(small("parts", **variant))
    assert results["status"] == "interrupted" and results["exit_code"] == 128 + number
    saved = load_checkpoint(tmp_path / "parts")["results"]["update"]
    assert 7 <= saved == results["update"] < 10
    resumed = train(Args(resume=str(tmp_path / "parts")))
    assert resumed["status"] == "finished" and resumed["exit_code"] == 0
    assert [row["update"] for row in resumed["evaluations"]] == [10, 20]
    assert differences(final_state(tmp_path / "whole"), final_state(tmp_path / "parts")) == []


def test_an_interruption_leaves_no_trace_in_the_evaluations(small, monkeypatch):
    """Whatever else they hold than timings (mean losses since the evaluation before, say)."""
    whole = train(small("whole"))["evaluations"]
    with monkeypatch.context() as patch:
        after(7, lambda: os.kill(os.getpid(), signal.SIGTERM), patch)
        train(small("parts"))
    parts = train(Args(resume=small("parts").run_dir))["evaluations"]
    assert differences(without(whole, *TIMINGS), without(parts, *TIMINGS)) == []


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
    train(Args(resume=args.run_dir))
    assert differences(final_state(tmp_path / "whole"), final_state(tmp_path / "parts")) == []


def test_signals_act_as_before_once_training_is_over(small, monkeypatch):
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    train(small("a", num_updates=1))
    after(1, lambda: os.kill(os.getpid(), signal.SIGTERM), monkeypatch)
    train(small("b"))
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_finished_run_resumes_to_the_same_end(small, tmp_path):
    first = train(small())
    again = train(Args(resume=str(tmp_path / "run")))
    assert again["status"] == "finished" and again["exit_code"] == 0
    assert again["evaluations"] == first["evaluations"] and again["last"] == first["last"]


def test_a_damaged_checkpoint_is_replaced_by_the_one_before(small, tmp_path, monkeypatch):
    """Cut short by a full disk: the run goes on from the checkpoint before, with a warning."""
    train(small("whole", checkpoint_freq=5))
    train(small("parts", checkpoint_freq=5))
    path = tmp_path / "parts" / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.warns(UserWarning, match=r"checkpoint\.pt"):
        train(Args(resume=str(tmp_path / "parts")))
    assert differences(final_state(tmp_path / "whole"), final_state(tmp_path / "parts")) == []


LONG = dict(num_updates=200, eval_freq=50, checkpoint_freq=4)


@pytest.fixture(scope="module")
def uninterrupted(dataset, tmp_path_factory):
    """The final state of 200 updates in this process."""
    run_dir = tmp_path_factory.mktemp("long") / "run"
    train(Args(
        dataset_path=str(dataset), run_dir=str(run_dir), batch_size=16, hidden_dim=16,
        tensorboard=False, num_holdout=24, device="cpu", **LONG,
    ))  # fmt: skip
    return final_state(run_dir)


def start(dataset, run_dir):
    """The same run in a process of its own, once it has a checkpoint."""
    flags = dict(batch_size=16, hidden_dim=16, num_holdout=24, device="cpu", **LONG)
    flags = [v for k, n in flags.items() for v in ("--" + k.replace("_", "-"), n)]
    flags += ["--no-tensorboard", "--dataset-path", dataset, "--run-dir", run_dir]
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    script = run_script(ROOT / "gtp_offline.py", *flags, folder=run_dir.parent, **pipes)
    process = subprocess.Popen(**script)
    while not (run_dir / "checkpoint.pt").exists() and process.poll() is None:
        time.sleep(0.01)
    return process


def test_ctrl_c_saves_the_run_and_prints_how_to_go_on(dataset, tmp_path, uninterrupted):
    """Exit code 130; resumed in another process, it ends like an uninterrupted run."""
    run_dir = tmp_path / "run"
    process = start(dataset, run_dir)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors and f"--resume {run_dir}" in output + errors
    assert json.loads((run_dir / "results.json").read_text())["status"] == "interrupted"
    train(Args(resume=str(run_dir)))
    assert differences(uninterrupted, final_state(run_dir)) == []


def test_sigterm_ends_the_program_with_143(small, monkeypatch, capsys):
    """main() returns the exit code and has printed how to go on."""
    after(3, lambda: os.kill(os.getpid(), signal.SIGTERM), monkeypatch)
    flags = ["--dataset-path", small().dataset_path, "--run-dir", small().run_dir]
    flags += ["--num-updates", "20", "--batch-size", "16", "--hidden-dim", "16"]
    monkeypatch.setattr(sys, "argv", ["gtp_offline.py", "--no-tensorboard", *flags])
    assert gtp.main() == 143
    printed = capsys.readouterr()
    assert f"--resume {small().run_dir}" in printed.out + printed.err


def test_a_killed_run_resumes_bit_for_bit(dataset, tmp_path, uninterrupted):
    """SIGKILL at a random moment, with a checkpoint every four updates; the lock dies too."""
    run_dir = tmp_path / "run"
    process = start(dataset, run_dir)
    time.sleep(random.uniform(0, 0.3))
    process.kill()
    process.communicate()
    assert train(Args(resume=str(run_dir)))["status"] == "finished"
    assert differences(uninterrupted, final_state(run_dir)) == []


# ---- run directories -------------------------------------------------------------------------


def refused(args, *fragments):
    """train raises a ValueError or OSError of one line with the fragments -> its exit code."""
    with pytest.raises((ValueError, OSError)) as caught:
        train(args)
    message = str(caught.value)
    assert "\n" not in message and all(str(f) in message for f in fragments), message
    return caught.value.exit_code


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_directory_in_use_is_refused(small, monkeypatch, resume):
    """By a second start before the first checkpoint, and by a second --resume after it."""
    args, codes = small(checkpoint_freq=5), []
    second = Args(resume=args.run_dir) if resume else args
    attempt = [lambda: codes.append(refused(second, args.run_dir, "use"))]
    after(8 if resume else 2, lambda: attempt.pop()(), monkeypatch)
    assert train(args)["status"] == "finished" and codes == [1]


def test_a_directory_with_a_run_is_refused(small, tmp_path):
    train(small(num_updates=1))
    before = (tmp_path / "run" / "checkpoint.pt").read_bytes()
    assert refused(small(num_updates=1), tmp_path / "run", "--resume") == 1
    assert (tmp_path / "run" / "checkpoint.pt").read_bytes() == before


def test_a_directory_without_a_checkpoint_may_be_reused(small, tmp_path, monkeypatch):
    """What a run leaves that failed in its first update does not stand in the way."""

    def fail():
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        after(1, fail, patch)
        with pytest.raises(RuntimeError):
            train(small())
    assert (tmp_path / "run").exists() and not (tmp_path / "run" / "checkpoint.pt").exists()
    assert train(small())["status"] == "finished"


def test_resume_keeps_the_arguments_of_the_run(small, tmp_path):
    train(small(num_updates=1))
    assert refused(Args(resume=str(tmp_path / "run"), eta=2.0), "eta") == 2


def test_resume_takes_the_dataset_from_a_new_place_but_no_other_dataset(small, dataset, tmp_path):
    train(small(num_updates=1))
    moved, other = tmp_path / "moved.npz", tmp_path / "other.npz"
    moved.write_bytes(dataset.read_bytes())
    np.savez(other, **make_dataset(seed=1))
    run_dir = str(tmp_path / "run")
    assert train(Args(resume=run_dir, dataset_path=str(moved)))["status"] == "finished"
    assert refused(Args(resume=run_dir, dataset_path=str(other)), other) == 1


def test_nothing_to_resume_is_refused(tmp_path):
    assert refused(Args(resume=str(tmp_path / "absent")), tmp_path / "absent") == 2
    assert not (tmp_path / "absent").exists()


# ---- divergence and ablations ----------------------------------------------------------------


def nan_from(count, monkeypatch):
    calls, original = [0], gtp.actor_loss

    def diverging(*inputs):
        calls[0] += 1
        loss, metrics = original(*inputs)
        factor = math.nan if calls[0] >= count else 1.0
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
        assert weights.shape == (16,) and (weights >= 1).all() and not weights.requires_grad
        loss = nets["actor"].inst_map(obs, actions + t * noise, t).square().mean()
        return loss, {"actor": loss, "shrinkage": loss}

    monkeypatch.setattr(gtp, "actor_loss", replaced)
    results = train(small(tensorboard=False))
    assert calls == [5.0] * 20 and results["status"] == "finished"


# ---- arguments -------------------------------------------------------------------------------


def resolved(*flags):
    """What the command line gives."""
    return resolve_args(tyro.cli(Args, args=[*" ".join(flags).split(), "--device", "cpu"]))


# Table 4: eta 5 and learning rate 3e-4 but where a row says otherwise. Gradient norms: medium,
# medium-replay, medium-expert of halfcheetah, hopper, walker2d.
GRADIENT_NORMS = {
    "medium": (9, 9, 1), "medium-replay": (2, 4, 4), "medium-expert": (7, 5, 5),
}  # fmt: skip
TABLE = {
    f"{robot}-{level}-v2": dict(grad_norm=norm, eta=5, learning_rate=3e-4, max_q_backup=False)
    for level, norms in GRADIENT_NORMS.items()
    for robot, norm in zip(("halfcheetah", "hopper", "walker2d"), norms, strict=True)
}
TABLE["hopper-medium-v2"]["eta"] = 1
ANTMAZES = {
    "umaze": dict(grad_norm=2, eta=5, learning_rate=3e-4, max_q_backup=False),
    "umaze-diverse": dict(grad_norm=3, eta=1, learning_rate=3e-4, max_q_backup=True),
    "medium-play": dict(grad_norm=2, eta=5, learning_rate=1e-3, max_q_backup=True),
    # not in the paper
    "medium-diverse": dict(grad_norm=1, eta=5, learning_rate=3e-4, max_q_backup=True),
    "large-play": dict(grad_norm=10, eta=5, learning_rate=3e-4, max_q_backup=True),
    "large-diverse": dict(grad_norm=7, eta=5, learning_rate=3e-4, max_q_backup=True),
}


def values(args, expected):
    return {key: getattr(args, key) for key in expected}


@pytest.mark.parametrize("env_id", TABLE)
def test_locomotion_tasks_have_the_papers_values(env_id):
    expected = TABLE[env_id] | dict(
        num_updates=2_000_000, eval_freq=100_000, num_eval_episodes=10, reward_scale=1,
        reward_shift=0, critic_learning_rate=3e-4,
    )  # fmt: skip
    assert values(resolved("--env-id", env_id), expected) == expected


@pytest.mark.parametrize("version", ["v0", "v2"])
@pytest.mark.parametrize("maze", ANTMAZES)
def test_antmaze_tasks_have_the_papers_values(maze, version):
    expected = ANTMAZES[maze] | dict(
        num_updates=1_000_000, eval_freq=50_000, num_eval_episodes=100, reward_scale=4,
        reward_shift=-0.5, critic_learning_rate=3e-4,
    )  # fmt: skip
    assert values(resolved(f"--env-id antmaze-{maze}-{version}"), expected) == expected


def test_without_task_and_file_the_task_is_multigoal():
    expected = dict(
        env_id="multigoal-v0", eta=0, learning_rate=1e-3, num_updates=4_000, eval_freq=200,
        num_eval_episodes=1_000, grad_norm=0,
    )  # fmt: skip
    assert values(resolved(""), expected) == expected


def test_unequal_goals_are_learned_with_weights():
    expected = dict(eta=5, num_updates=8_000, num_eval_episodes=1_000)
    assert values(resolved("--env-id multigoal-unequal-v0"), expected) == expected


def test_a_file_alone_has_no_task():
    expected = dict(
        env_id=None, eta=5, learning_rate=3e-4, grad_norm=0, num_updates=100_000, reward_scale=1,
        reward_shift=0,
    )  # fmt: skip
    assert values(resolved("--dataset-path x.npz"), expected) == expected


DEFAULT = dict(
    consistency_loss="pseudo-huber", huber_c=0.03, consistency_weighting="inverse-gap",
    flow_weighting="edm", lambda_flow=10, t_sampling="lognormal", sigma_max=5, sigma_min=0.002,
    preconditioning="edm", strict_s=False, u_sampling="adjacent", sampler_end="sigma-min",
    max_weight=100, value="learned", weight_critic="online", eval_actor="ema", num_candidates=1,
    num_steps=5, num_holdout=2000, gamma=0.99, tau=0.005, batch_size=256, hidden_dim=256,
    num_threads=1,
)  # fmt: skip
LITERAL = DEFAULT | dict(
    consistency_loss="squared", consistency_weighting="none", flow_weighting="none",
    lambda_flow=1, t_sampling="uniform", sigma_max=80, preconditioning="none", strict_s=True,
    sampler_end="zero", max_weight=math.inf, eval_actor="online", num_holdout=0,
)  # fmt: skip


def test_the_defaults_are_those_of_the_design():
    assert values(resolved("--dataset-path x.npz"), DEFAULT) == DEFAULT


@pytest.mark.parametrize("where", ["--dataset-path x.npz", "--env-id hopper-medium-v2"])
def test_literal_is_the_papers_letter(where):
    assert values(resolved(where, "--literal"), LITERAL) == LITERAL


def test_the_command_line_wins_over_the_table():
    flags = "--eta 3 --learning-rate 1e-4 --grad-norm 0.5 --num-updates 7 --num-eval-episodes 2"
    args = resolved("--env-id antmaze-umaze-diverse-v0", flags, "--reward-scale 1 --reward-shift 0")
    assert (args.eta, args.learning_rate, args.grad_norm, args.num_updates) == (3, 1e-4, 0.5, 7)
    assert (args.num_eval_episodes, args.reward_scale, args.reward_shift) == (2, 1, 0)
    assert args.max_q_backup is True


def test_the_command_line_wins_over_literal_even_with_a_default():
    """--sigma-max 5 is the default without --literal: given, it stays 5."""
    flags = "--sigma-max 5 --max-weight 100 --num-holdout 100 --consistency-loss pseudo-huber"
    args = resolved("--env-id hopper-medium-v2 --literal", flags, "--eta 0")
    assert (args.sigma_max, args.max_weight, args.num_holdout) == (5, 100, 100)
    assert args.consistency_loss == "pseudo-huber" and args.eta == 0 and args.lambda_flow == 1


def test_resolving_twice_changes_nothing_and_leaves_the_given_arguments():
    given = Args(dataset_path="x.npz", device="cpu", num_updates=40)
    once = resolve_args(given)
    assert resolve_args(once) == once and given.eta is None and given.eval_freq is None
    assert once.eval_freq == 2


def test_every_flag_has_a_help_text():
    """The comment at the end of its line, which tyro shows."""
    lines = inspect.getsource(Args).splitlines()
    for name in Args.__dataclass_fields__:
        (line,) = (line for line in lines if line.strip().startswith(f"{name}: "))
        assert "  # " in line, name
