"""A Q that no return can be is said once, with the remedy."""

import math

import numpy as np
import pytest

import consistency_ac as cac
import diffusion_ql as dql
import gtp_bc as bc
import gtp_offline as gtp
from offline_tasks.endings import largest_return, largest_rewards, say_impossible_q


def test_the_largest_reward_of_each_kind_of_transition():
    rewards, terminals = np.array([1.0, 5.0, -2.0, 7.0]), np.array([0, 1, 0, 1])
    both = {"largest_rewards": {"going_on": 1.0, "ending": 7.0}}
    assert largest_rewards(rewards, terminals) == both
    assert largest_rewards(rewards, 0 * terminals)["largest_rewards"]["ending"] is None
    assert largest_rewards(rewards, 1 + terminals)["largest_rewards"]["going_on"] is None


@pytest.mark.parametrize(
    ("going_on", "ending", "gamma", "bound"),
    [
        (-2.0, 2.0, 0.99, 2.0),  # a maze: the goal at once
        (1.0, 2.0, 0.9, 10.0),  # one for ever
        (1.0, 30.0, 0.9, 30.0),
        (3.0, None, 0.5, 6.0),
        (None, -4.0, 0.9, -4.0),
        (-2.0, None, 0.5, -4.0),  # two steps of a time limit have more, but V has no limit
        (1.0, 2.0, 1.0, math.inf),
        (-1.0, 2.0, 1.0, 2.0),
    ],
)
def test_no_return_exceeds_the_bound(going_on, ending, gamma, bound):
    largest = {"going_on": going_on, "ending": ending}
    assert largest_return(largest, gamma) == pytest.approx(bound)


def test_it_is_said_once_and_kept(capsys):
    """The goal is worth 2; a largest Q of a batch that is a little more is an error of the fit."""
    largest = {"going_on": -2.0, "ending": 2.0}
    results = {"losses": [{"q_mean": 1.0, "q_max": 2.9}], "dataset": {"largest_rewards": largest}}
    say_impossible_q(results, 0.99)
    assert capsys.readouterr().err == "" and "q_bound" not in results
    for q_max in (3.1, 50.0):
        results["losses"].append({"q_mean": 1.0, "q_max": q_max})
        say_impossible_q(results, 0.99)
    (line,) = capsys.readouterr().err.splitlines()
    assert "3.1" in line and "--gamma 0.99 allow 2" in line and "--critic-learning-rate" in line
    assert results["q_bound"] == 2


@pytest.mark.parametrize("norm", ["layer", "none", None])
@pytest.mark.parametrize("reward", [-5.0, 5.0])
def test_the_remedy_is_one_that_helps(reward, norm, capsys):
    """Of steps that cost 5 each a new critic, near 0, knows nothing yet: a smaller learning rate
    would keep it there. A layer norm is named where there is none."""
    largest = {"going_on": reward, "ending": None}
    results = {"losses": [{"q_max": 1e6}], "dataset": {"largest_rewards": largest}}
    say_impossible_q(results | {"args": {"critic_norm": norm} if norm else {}}, 0.99)
    (line,) = capsys.readouterr().err.splitlines()
    assert ("still on its way down from 0; train longer" in line) == (reward < 0)
    assert ("--critic-learning-rate" in line) == (reward > 0)
    assert ("--critic-norm layer" in line) == (norm != "layer")


def test_runs_without_a_critic_or_of_older_versions_say_nothing(capsys):
    say_impossible_q({"losses": [{"actor": 1.0}], "dataset": {"largest_rewards": {}}}, 0.99)
    say_impossible_q({"losses": [{"q_mean": 1e9}], "dataset": {}}, 0.99)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("script", [gtp, dql, cac])
def test_a_critic_that_starts_too_high_is_seen_in_training(script, small, capsys):
    """All rewards are -1000 after the shift, so any Q near 0 is impossible."""
    changes = {"reward_shift": -1000.0, "num_candidates": 2, "num_updates": 2, "eval_freq": 1}
    results = script.train(small(script=script, **changes))
    lines = capsys.readouterr().err.splitlines()
    assert sum("the critic overestimates" in line for line in lines) == 1
    largest = results["dataset"]["largest_rewards"]
    assert results["q_bound"] == largest_return(largest, 0.99) < -900


def test_q_of_normalized_targets_is_no_return(small, capsys):
    changes = {"reward_shift": -1000.0, "num_updates": 2, "eval_freq": 1}
    results = cac.train(small(script=cac, q_norm=True, **changes))
    assert "overestimates" not in capsys.readouterr().err and "q_bound" not in results


def test_cloning_has_the_rewards_but_no_q(small):
    results = bc.train(small(script=bc))
    assert "largest_rewards" in results["dataset"] and "q_bound" not in results
