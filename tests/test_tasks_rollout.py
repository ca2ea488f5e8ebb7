"""offline_tasks.rollout: evaluation."""

import numpy as np
import pytest

import offline_tasks
from offline_tasks import evaluate, make_env, play, rollout, toys


def swaying(action_dim):
    """A deterministic policy that depends on the observation."""
    weights = np.random.default_rng(0).normal(size=(29, action_dim))
    return lambda obs: np.tanh(obs @ weights[: obs.shape[1]])


def one_by_one(env_id, act, num_episodes, seed):
    returns, lengths = [], []
    for episode_seed in offline_tasks.episode_seeds(seed, num_episodes):
        env = make_env(env_id)
        obs, _ = env.reset(seed=episode_seed)
        rewards, over = [], False
        while not over:
            action = act(obs.astype(np.float32)[None])[0]
            obs, reward, terminated, truncated, _ = env.step(action)
            rewards.append(reward)
            over = terminated or truncated
        returns.append(sum(rewards))
        lengths.append(len(rewards))
    return np.array(returns), np.array(lengths)


@pytest.mark.parametrize("env_id", ["hopper-medium-v2", "walker2d-medium-replay-v2", *toys.TOYS])
def test_evaluate_equals_one_episode_at_a_time(env_id):
    act = swaying(offline_tasks.task_dims(env_id)[1])
    result = evaluate(env_id, act, 5, seed=7)
    returns, lengths = one_by_one(env_id, act, 5, seed=7)
    scores = offline_tasks.normalized_score(env_id, returns)
    # not to the last bit: a product with a batch may round differently from one with a row
    assert result["episodic_return"] == pytest.approx(returns.mean(), rel=1e-6, abs=1e-9)
    assert result["episodic_length"] == lengths.mean()
    assert result["normalized_score"] == pytest.approx(scores.mean(), rel=1e-6, abs=1e-9)
    assert result["normalized_score_std"] == pytest.approx(scores.std(), rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("env_id", ["hopper-medium-v2", "multigoal-v0"])
def test_evaluate_depends_on_its_seed_alone(env_id):
    act = swaying(offline_tasks.task_dims(env_id)[1])
    np.random.seed(0)
    state = np.random.get_state()[1].copy()
    first = evaluate(env_id, act, 4, seed=1)
    np.testing.assert_array_equal(np.random.get_state()[1], state)
    np.random.seed(5)
    assert evaluate(env_id, act, 4, seed=1) == first
    if env_id == "hopper-medium-v2":
        assert evaluate(env_id, act, 4, seed=2)["episodic_return"] != first["episodic_return"]
    assert set(offline_tasks.episode_seeds(1, 100)).isdisjoint(offline_tasks.episode_seeds(2, 100))


def test_evaluate_calls_the_policy_once_a_step_with_what_still_runs():
    sizes = []

    def act(obs):
        assert obs.dtype == np.float32 and obs.shape[1] == 11
        sizes.append(len(obs))
        return np.full((len(obs), 3), 0.5)

    result = evaluate("hopper-medium-v2", act, 6, seed=0)
    assert sizes[0] == 6 and sizes == sorted(sizes, reverse=True)
    assert sum(sizes) == pytest.approx(6 * result["episodic_length"])
    assert list(result) == [
        "normalized_score",
        "normalized_score_std",
        "episodic_return",
        "episodic_length",
        "goal_fractions",
    ]
    assert result["goal_fractions"] is None


def test_evaluate_multigoal_by_hand():
    def act(obs):  # to the top right, whatever comes
        return np.ones((len(obs), 2))

    result = evaluate("multigoal-unequal-v0", act, 1000, seed=0)
    assert result["goal_fractions"][0] > 0.9 and sum(result["goal_fractions"][1:]) == 0
    assert result["normalized_score"] == pytest.approx(100 * result["goal_fractions"][0])
    still = evaluate("multigoal-v0", lambda obs: np.zeros((len(obs), 2)), 10, seed=0)
    assert still["episodic_length"] == 30 and still["goal_fractions"] == [0.0] * 4


def test_each_antmaze_episode_has_a_goal_of_its_own(monkeypatch):
    goals, original = [], rollout.make_env

    def spied(env_id):
        env = original(env_id)
        reset = env.reset

        def spied_reset(seed):
            obs = reset(seed=seed)
            goals.append(tuple(env.unwrapped.target_goal))
            env._max_episode_steps = 2  # enough to see
            return obs

        env.reset = spied_reset
        return env

    monkeypatch.setattr(rollout, "make_env", spied)
    evaluate("antmaze-umaze-v0", lambda obs: np.zeros((len(obs), 8)), 5, seed=0)
    assert len(set(goals)) == 5


def test_evaluate_closes_its_environments_even_if_the_policy_fails(monkeypatch):
    closed, original = [], rollout.make_env

    def spied(env_id):
        env = original(env_id)
        monkeypatch.setattr(env, "close", lambda: closed.append(env))
        return env

    monkeypatch.setattr(rollout, "make_env", spied)
    evaluate("hopper-medium-v2", lambda obs: np.ones((len(obs), 3)), 3, seed=0)
    assert len(closed) == 3
    with pytest.raises(ZeroDivisionError):
        evaluate("hopper-medium-v2", lambda obs: 1 / 0, 3, seed=0)
    assert len(closed) == 6


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (np.zeros((3, 2)), r"shape \(3, 2\) for 'multigoal-v0': \(4, 2\) is needed"),
        (np.full((4, 2), np.nan), r"shape \(4, 2\) .* not finite: it has diverged"),
        (np.zeros(4), r"shape \(4,\) for 'multigoal-v0': \(4, 2\) is needed"),
    ],
)
def test_evaluate_refuses_what_is_no_batch_of_actions(bad, said):
    with pytest.raises(ValueError, match=said):
        evaluate("multigoal-v0", lambda obs: bad, 4, seed=0)
    with pytest.raises(ValueError, match="num_episodes is 0"):
        evaluate("multigoal-v0", lambda obs: bad, 0, seed=0)


@pytest.mark.parametrize("env_id", ["hopper-medium-v2", "pointmaze-umaze-v0", "multigoal-v0"])
def test_play_gives_what_evaluate_summarises(env_id):
    act = swaying(offline_tasks.task_dims(env_id)[1])
    episodes = play(env_id, act, 6, seed=3)
    result = evaluate(env_id, act, 6, seed=3)
    returns, lengths = one_by_one(env_id, act, 6, seed=3)
    np.testing.assert_allclose(episodes["returns"], returns, rtol=1e-6, atol=1e-9)
    np.testing.assert_array_equal(episodes["lengths"], lengths)
    scores = offline_tasks.normalized_score(env_id, episodes["returns"])
    np.testing.assert_array_equal(episodes["scores"], scores)
    assert result["episodic_return"] == episodes["returns"].mean()
    assert result["normalized_score"] == scores.mean()
    assert result["normalized_score_std"] == scores.std()
    goals_told = [episodes["goals"] is not None, result["goal_fractions"] is not None]
    assert goals_told == [env_id == "multigoal-v0"] * 2


def test_play_tells_the_goal_of_each_episode():
    def act(obs):  # to the quadrant's goal
        return np.sign(obs)

    episodes = play("multigoal-unequal-v0", act, 40, seed=0)
    worth = np.array([1.0, 0.5, 0.5, 0.25, 0.0])  # the last: none reached
    np.testing.assert_array_equal(episodes["returns"], worth[episodes["goals"]])
    result = evaluate("multigoal-unequal-v0", act, 40, seed=0)
    counts = np.bincount(episodes["goals"][episodes["goals"] >= 0], minlength=4)
    np.testing.assert_allclose(result["goal_fractions"], counts / 40)
    assert min(counts) > 0


def test_play_without_reference_scores():
    episodes = play("Pendulum-v1", lambda obs: np.zeros((len(obs), 1)), 2, seed=0)
    assert episodes["scores"] is episodes["goals"] is None
    assert episodes["returns"].shape == (2,) and (episodes["lengths"] == 200).all()
