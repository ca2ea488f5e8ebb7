"""Evaluation: parallel episodes of a policy, one call of the policy a step."""

import contextlib

import numpy as np

from offline_tasks import toys
from offline_tasks.environments import Watched, closing
from offline_tasks.registry import make_env, normalized_score, task_dims


def episode_seeds(seed: int, num_episodes: int) -> list[int]:
    """The seeds that `play` resets its episodes with."""
    return np.random.SeedSequence(seed).generate_state(num_episodes).tolist()


def evaluate(env_id: str, act, num_episodes: int, seed: int) -> dict:
    """Means over the episodes of `play`. What does not apply is None;
    `normalized_score_std` is over the episodes."""
    episodes = play(env_id, act, num_episodes, seed)
    scores, goals = episodes["scores"], episodes["goals"]
    fractions = None
    if goals is not None:
        num_goals = len(toys.TOYS[env_id].rewards)
        fractions = [float((goals == k).mean()) for k in range(num_goals)]
    return {
        "normalized_score": None if scores is None else float(scores.mean()),
        "normalized_score_std": None if scores is None else float(scores.std()),
        "episodic_return": float(episodes["returns"].mean()),
        "episodic_length": float(episodes["lengths"].mean()),
        "goal_fractions": fractions,
    }


def play(env_id: str, act, num_episodes: int, seed: int) -> dict:
    """`returns, lengths, scores` (None without reference scores) and `goals` (multigoal: the one
    reached or -1; else None), each (num_episodes,), of parallel episodes of `act`, which gets the
    float32 observations (n, obs_dim) of those still running. All randomness but the policy's own is
    from `seed`. Each AntMaze episode draws its own goal; D4RL's users draw one per evaluation.
    Raises ValueError for actions of another shape than (n, action_dim) or not finite, and for an
    environment that fails."""
    if num_episodes < 1:
        raise ValueError(f"num_episodes is {num_episodes}: at least 1 is needed")
    obs_dim, action_dim, _ = task_dims(env_id)

    def policy(obs):
        actions = np.asarray(act(np.asarray(obs, dtype=np.float32)))
        what = f"the policy gave actions of shape {actions.shape} for {env_id!r}"
        if actions.shape != (len(obs), action_dim):
            raise ValueError(f"{what}: {(len(obs), action_dim)} is needed")
        if not np.isfinite(actions).all():
            raise ValueError(
                f"{what} that are not finite: it has diverged; train it with a smaller "
                "--learning-rate, --critic-learning-rate or --reward-scale"
            )
        return actions

    seeds = episode_seeds(seed, num_episodes)
    goals = None
    successes = None
    if toys.owns(env_id):
        toy = toys.TOYS[env_id]
        start = toys.starts(toy, seeds)
        episodes = toys.rollout(toy, start, lambda obs, _: policy(obs), toy.max_steps)
        returns, lengths = episodes.returns, episodes.lengths
        goals = episodes.goals if len(toy.rewards) > 1 else None
    else:
        returns, lengths, successes = _rollout(env_id, obs_dim, policy, seeds)
    scores = normalized_score(env_id, returns, successes)
    return {"returns": returns, "lengths": lengths, "scores": scores, "goals": goals}


def _rollout(env_id: str, obs_dim: int, policy, seeds) -> tuple[np.ndarray, ...]:
    """Returns, lengths and successes (n,) of one episode of a Gymnasium environment per seed; a
    success is what the last step's `info` says, 0 where it says nothing."""
    returns = np.zeros(len(seeds))
    lengths = np.zeros(len(seeds), dtype=int)
    successes = np.zeros(len(seeds))
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(closing(make_env(env_id), env_id)) for _ in seeds]
        envs = [Watched(env, env_id, obs_dim) for env in opened]
        obs = {i: envs[i].reset(seed) for i, seed in enumerate(seeds)}
        while obs:
            running = list(obs)
            actions = policy(list(obs.values()))
            for i, action in zip(running, actions, strict=True):
                obs[i], reward, success = envs[i].step(action)
                returns[i] += reward
                lengths[i] += 1
                if obs[i] is None:
                    successes[i] = success
                    del obs[i]
    return returns, lengths, successes
