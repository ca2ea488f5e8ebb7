"""offline_tasks.toys: multigoal."""

import numpy as np
import pytest

import offline_tasks
from offline_tasks import evaluate, multigoal


@pytest.fixture
def multigoal_data(tmp_path, monkeypatch):
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path))
    with np.load(offline_tasks.dataset_file("multigoal-v0")) as file:
        return dict(file)


def test_multigoal_data_are_what_the_task_says(multigoal_data):
    obs, actions = multigoal_data["observations"], multigoal_data["actions"]
    ends = multigoal_data["terminals"] | multigoal_data["timeouts"]
    assert obs.dtype == actions.dtype == np.float32 and 20_000 < len(obs) < 50_000
    assert (multigoal_data["rewards"] == multigoal_data["terminals"]).all()
    starts = obs[np.r_[0, np.flatnonzero(ends)[:-1] + 1]]
    np.testing.assert_allclose(starts.std(0), 0.1, rtol=0.05)
    np.testing.assert_allclose(starts.mean(0), 0, atol=0.005)
    assert np.abs(actions).max() <= 1
    # the dynamics, and no goal but at an episode's end
    moved = np.clip(obs + 0.2 * actions, -1, 1)
    np.testing.assert_allclose(obs[1:][~ends[:-1]], moved[:-1][~ends[:-1]], atol=1e-6)
    distance = np.linalg.norm(moved[:, None] - multigoal.GOALS, axis=-1)
    inside = distance.min(1) <= 0.2
    assert (inside == multigoal_data["terminals"]).mean() > 0.9999  # but for float32 rounding
    counts = np.bincount(distance[multigoal_data["terminals"]].argmin(1))
    np.testing.assert_array_equal(counts, len(starts) // 4)
    assert len(starts) == multigoal.DATA_EPISODES


def test_multigoal_unequal_differs_in_the_rewards_alone(multigoal_data):
    with np.load(offline_tasks.dataset_file("multigoal-unequal-v0")) as file:
        unequal = dict(file)
    for key in ("observations", "actions", "terminals", "timeouts"):
        np.testing.assert_array_equal(unequal[key], multigoal_data[key])
    values, counts = np.unique(unequal["rewards"][unequal["terminals"]], return_counts=True)
    np.testing.assert_array_equal(values, [0.25, 0.5, 1])
    np.testing.assert_array_equal(counts, [2000, 4000, 2000])


def test_a_policy_that_is_the_datas_reaches_every_goal(multigoal_data):
    """Near exact p(action | state): the action of one of the ten nearest states of the data."""
    rng = np.random.default_rng(0)
    rows = slice(0, 12_000)
    obs, actions = multigoal_data["observations"][rows], multigoal_data["actions"][rows]

    def act(batch):
        distance = ((batch[:, None] - obs) ** 2).sum(-1)
        nearest = np.argpartition(distance, 10, axis=1)[:, :10]
        return actions[nearest[np.arange(len(batch)), rng.integers(10, size=len(batch))]]

    result = evaluate("multigoal-v0", act, 500, seed=0)
    assert 1 - sum(result["goal_fractions"]) < 0.01
    np.testing.assert_allclose(result["goal_fractions"], 0.25, atol=0.07)
    assert result["normalized_score"] > 99
