"""docs/differences.md: what it says of evaluations and of toys is what the scripts do."""

import pytest
from conftest import ROOT

import consistency_ac
import diffusion_ql
import gtp_bc
import gtp_offline

TEXT = " ".join((ROOT / "docs" / "differences.md").read_text().split())
BASELINES = (diffusion_ql, consistency_ac)
MINARI = ("pen/human", "pen/cloned", "kitchen/complete", "kitchen/partial", "kitchen/mixed")
# tasks on which an evaluation of Consistency-AC sees a whole cycle of N(k)
WHOLE = ("hopper-medium-v2", "antmaze-umaze-v0", "cube-single-play-singletask-v0")
PARTS = ("pointmaze-large-v0", "Pendulum-v1", "D4RL/pen/expert-v2", "multigoal-v0")


def resolved(script, task, *words):
    """The arguments of a run, complete as they are saved."""
    words = ["--env-id", task, "--dataset-path", "x", "--device", "cpu", "--run-dir", "x", *words]
    args = script.parse_args(words)
    return args, args.eval_freq or max(1, args.num_updates // 20)


def row(number):
    """The row of Q`number`."""
    lines = (ROOT / "docs" / "differences.md").read_text().splitlines()
    (found,) = [line for line in lines if line.startswith(f"| Q{number} |")]
    return found


def test_the_tables_of_the_baselines_have_minaris_tasks():
    """Q5."""
    for script in BASELINES:
        assert {f"D4RL/{task}" for task in MINARI} <= set(script.TASKS)
    assert "here for Minari's `D4RL/pen/*` and `D4RL/kitchen/*`" in row(5)


@pytest.mark.parametrize("task", MINARI)
@pytest.mark.parametrize("script", [gtp_offline, gtp_bc, *BASELINES])
def test_how_many_episodes_pen_and_kitchen_are_evaluated_over(script, task):
    number = script.default_args(f"D4RL/{task}-v2").num_eval_episodes
    assert f"over {number} episodes where that code and the paper have 100" in row(5)


@pytest.mark.parametrize("task", MINARI)
def test_how_far_apart_evaluations_are_on_minari(task):
    found = [resolved(script, f"D4RL/{task}-v2")[1] for script in BASELINES]
    first, second = (f"{every:,}" for every in found)
    assert f"| `D4RL/{task}` | {first} | {second} |" in TEXT


def evaluations(script, num_updates):
    """How many a run on locomotion makes, counted as the training does."""
    args, every = resolved(script, "hopper-medium-v2", "--num-updates", str(num_updates))
    updates = range(1, args.num_updates + 1)
    return sum(update == args.num_updates or update % every == 0 for update in updates)


@pytest.mark.parametrize("script", BASELINES)
def test_how_often_a_shorter_run_evaluates(script):
    counts = {n: evaluations(script, n) for n in (1_000, 799, 100, 60, 39)}
    assert counts == {1_000: 40, 799: 43, 100: 50, 60: 60, 39: 39}
    assert "40 of 1,000 updates, 43 of 799, but 50 of 100, 60 of 60 and 39 of 39" in TEXT


def test_where_an_evaluation_sees_a_whole_cycle_of_n_k():
    """Q16: by default where an evaluation and a new cycle of N(k) are 50,000 updates apart."""
    for task in (*WHOLE, "D4RL/pen/human-v2"):
        assert resolved(consistency_ac, task)[1] == 50_000
    for task in PARTS:
        assert resolved(consistency_ac, task)[1] != 50_000
    args, _ = resolved(consistency_ac, WHOLE[0])
    points = [consistency_ac.num_grid_points(update, args) for update in (0, 49_999, 50_000)]
    assert points[0] == points[2] < points[1]
    said = "by default on locomotion, AntMaze, OGBench and `D4RL/pen/human`, at full length"
    assert said in row(16)


def test_the_toys_of_four_modes():
    """Q8 and S13: on multigoal-v0 all clone; where the modes are unequal each has its own."""
    for script in (*BASELINES, gtp_offline, gtp_bc):
        args, _ = resolved(script, "multigoal-v0")
        assert getattr(args, "eta", 0) == 0 and getattr(args, "num_candidates", 1) == 1
    for script in BASELINES:
        args, _ = resolved(script, "multigoal-unequal-v0")
        assert (args.eta, args.num_candidates) == (1, 50)
    assert "on multigoal-unequal-v0 η = 1 and 50 candidates" in row(8)
