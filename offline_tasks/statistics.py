"""Statistics of scores over runs and tasks, and how many online evaluations a choice takes.

The interquartile mean, stratified bootstrap intervals, performance profiles and the probability of
improvement are those of Agarwal et al. 2021 (arXiv:2108.13264). `bandit` is the protocol of
Jackson et al. 2025 (unifloral, arXiv:2504.11453). `tasks` is always a list with an array of the
scores of a method's runs (..., runs) for each task; the numbers of runs may differ.
"""

import numpy as np

Scores = list[np.ndarray]
RESAMPLES = 2000
LEVELS = (0.025, 0.975)  # of an interval


def iqm(tasks: Scores) -> np.ndarray:
    """The mean of the middle half of all scores, over runs and tasks."""
    from scipy.stats import trim_mean

    return trim_mean(np.concatenate(tasks, axis=-1), 0.25, axis=-1)


def share_above(tasks: Scores, thresholds: np.ndarray) -> np.ndarray:
    """The share of all scores above each threshold (..., thresholds): a performance profile."""
    scores = np.concatenate(tasks, axis=-1)
    above = scores[..., None] > thresholds
    return above.mean(axis=-2)


def improvement(tasks: Scores, others: Scores) -> np.ndarray:
    """P(X > Y) of a run X on a task against a run Y of another method, mean over the tasks; equal
    scores count half. On a task it is the Mann-Whitney U over the number of pairs."""
    shares = []
    for scores, other in zip(tasks, others, strict=True):
        first = scores[..., :, None]
        second = other[..., None, :]
        wins = np.mean(first > second, axis=(-2, -1))
        ties = np.mean(first == second, axis=(-2, -1))
        shares.append(wins + ties / 2)
    return np.mean(shares, axis=0)


def resampled(tasks: Scores, rng: np.random.Generator) -> Scores:
    """The runs of each task drawn anew with replacement, (RESAMPLES, runs)."""
    drawn = []
    for scores in tasks:
        shape = (RESAMPLES, len(scores))
        rows = rng.integers(len(scores), size=shape)
        drawn.append(scores[rows])
    return drawn


def interval(statistic, *methods: Scores) -> np.ndarray:
    """95 % percentile interval (2, ...) of statistic(tasks of each method) by a bootstrap over the
    runs, stratified by task; the same for the same scores."""
    rng = np.random.default_rng(0)
    drawn = [resampled(tasks, rng) for tasks in methods]
    values = statistic(*drawn)
    return np.quantile(values, LEVELS, axis=0)


def bandit(
    policies: Scores,
    num_arms: int = 8,
    num_pulls: int = 200,
    repeats: int = 500,
) -> np.ndarray:
    """Tuning online: of some policies, each with the scores of its episodes, num_arms (or all) are
    drawn; UCB chooses which of them plays the next episode, one of its scores drawn at random. ->
    the true mean of the arm that looks best after each pull (repeats, num_pulls)."""
    rng = np.random.default_rng(0)
    num_arms = min(num_arms, len(policies))
    means = np.array([scores.mean() for scores in policies])
    each = np.arange(repeats)
    arms = np.empty((repeats, num_arms), int)
    for repeat in each:
        arms[repeat] = rng.permutation(len(policies))[:num_arms]
    counts = np.zeros((repeats, num_arms))
    sums = np.zeros((repeats, num_arms))
    found = np.empty((repeats, num_pulls))
    for pull in range(num_pulls):
        if pull < num_arms:  # each is tried once
            chosen = np.full(repeats, pull)
        else:
            bonus = np.sqrt(2 * np.log(pull) / counts)
            chosen = np.argmax(sums / counts + bonus, axis=1)
        counts[each, chosen] += 1
        sums[each, chosen] += draw_scores(policies, arms[each, chosen], rng)
        tried = slice(0, pull + 1)
        best = np.argmax(sums[:, tried] / counts[:, tried], axis=1)
        found[:, pull] = means[arms[each, best]]
    return found


def draw_scores(policies: Scores, numbers: np.ndarray, rng) -> np.ndarray:
    """For each number of a policy one of its scores."""
    scores = np.empty(len(numbers))
    for policy in np.unique(numbers):
        wanted = numbers == policy
        scores[wanted] = rng.choice(policies[policy], wanted.sum())
    return scores


def mean_interval(values: np.ndarray) -> np.ndarray:
    """95 % bootstrap interval (2, n) of the mean over the rows of values (repeats, n)."""
    count = len(values)
    chances = np.full(count, 1 / count)
    times_drawn = np.random.default_rng(0).multinomial(count, chances, size=RESAMPLES)
    means = times_drawn @ values / count
    return np.quantile(means, LEVELS, axis=0)
