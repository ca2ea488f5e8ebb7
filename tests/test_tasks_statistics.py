"""offline_tasks/statistics.py against numbers computed by hand and against Mann and Whitney's U."""

import math

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from offline_tasks import statistics


def arrays(*tasks):
    return [np.array(scores, float) for scores in tasks]


def test_the_interquartile_mean_is_over_runs_and_tasks():
    """Of 0, 10, 20, 100 and 1, 11, 21, 31 the two least and the two largest go: 10, 11, 20, 21."""
    assert statistics.iqm(arrays([0, 10, 20, 100], [1, 11, 21, 31])) == 15.5


def test_a_profile_is_the_share_of_all_runs_above_a_score():
    tasks = arrays([1, 2], [3])
    shares = statistics.share_above(tasks, np.array([0, 1, 2.5, 3]))
    assert shares.tolist() == [1, 2 / 3, 1 / 3, 0]


def test_the_probability_of_improvement_is_over_pairs_and_ties_count_half():
    """1 and 3 against 2 and 3: of four pairs one is won and one is a tie; then all are won."""
    first = arrays([1, 3], [5, 6, 7])
    second = arrays([2, 3], [4])
    assert statistics.improvement(first, second) == (1.5 / 4 + 1) / 2
    assert statistics.improvement(second, first) == (2.5 / 4 + 0) / 2


def test_the_probability_of_improvement_is_mann_whitneys_u():
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 9, (2, 7)).astype(float)
    share = mannwhitneyu(first, second[:5]).statistic / (7 * 5)
    assert statistics.improvement([first], [second[:5]]) == pytest.approx(share)


def test_an_interval_holds_95_per_cent_of_the_resamples():
    """Of two runs, 0 and 10: the mean of a resample is 0, 5 or 10 in 1, 2 and 1 of 4 cases. Of one
    run among 20 that differs, it is drawn never in 36 %, four times or more in 1.6 %."""
    assert statistics.interval(statistics.iqm, arrays([0, 10])).tolist() == [0, 10]
    one = arrays([0] * 19 + [20])

    def mean(tasks):
        return tasks[0].mean(-1)

    assert statistics.interval(mean, one).tolist() == [0, 3]


def test_resamples_are_stratified_by_task():
    """Runs that agree on each task leave nothing open, however the tasks differ."""
    tasks = arrays([0, 0], [10, 10])
    assert statistics.interval(statistics.iqm, tasks).tolist() == [5, 5]


def test_two_methods_are_resampled_apart():
    same = arrays([1, 2, 3, 4])
    low, high = statistics.interval(statistics.improvement, same, same)
    assert low < 0.3 < 0.7 < high


# ---- tuning online -------------------------------------------------------------------------------


def test_after_each_policy_has_played_the_best_is_known_if_scores_do_not_vary():
    """A mean of 0, 50 and 100 after one episode of one of them."""
    found = statistics.bandit(arrays([0, 0], [50], [100, 100, 100]))
    assert found.shape == (500, 200)
    assert (found[:, 2:] == 100).all()
    assert set(found[:, 0]) == {0, 50, 100}
    assert found[:, 0].mean() == pytest.approx(50, abs=6)  # three standard errors
    assert (np.diff(found) >= 0).all()


def test_eight_of_the_policies_are_drawn_without_replacement():
    """Of 0, ..., 9 the best of 8 is 9 in 8 of 10 cases, 8 in 16 of 90, else 7."""
    found = statistics.bandit(arrays(*([mean] for mean in range(10))))
    assert set(found[:, -1]) == {7, 8, 9}
    expected = 9 * 8 / 10 + 8 * 16 / 90 + 7 * 2 / 90
    assert found[:, -1].mean() == pytest.approx(expected, abs=0.07)


def test_the_arm_is_that_of_the_upper_confidence_bound(monkeypatch):
    """Two policies that always score 0 and 1: the rule, written out for one repeat."""
    played = []
    draw = statistics.draw_scores

    def noted(policies, numbers, rng):
        played.append(numbers[0])
        return draw(policies, numbers, rng)

    monkeypatch.setattr(statistics, "draw_scores", noted)
    statistics.bandit(arrays([0], [1]), num_pulls=60, repeats=1)
    counts = {0: 0, 1: 0}
    for pull, policy in enumerate(played):
        if pull >= 2:
            bounds = {k: k + math.sqrt(2 * math.log(pull) / n) for k, n in counts.items()}
            assert policy == max(bounds, key=bounds.get)
        counts[policy] += 1
    assert 0 < counts[0] - 1 < counts[1] - 20  # both are played again, the better one more


def test_scores_vary_and_more_episodes_choose_better():
    rng = np.random.default_rng(1)
    policies = [rng.normal(mean, 5, 300) for mean in (0, 1, 2, 10)]
    mean = statistics.bandit(policies).mean(0)
    assert mean[0] < mean[20] < mean[-1]
    assert mean[-1] > 9


def test_every_score_of_a_policy_is_drawn():
    rng = np.random.default_rng(0)
    scores = statistics.draw_scores(arrays([1, 2, 3], [7]), np.array([0, 1] * 50), rng)
    assert set(scores[::2]) == {1, 2, 3}
    assert set(scores[1::2]) == {7}


def test_the_interval_of_a_mean():
    """Of values that are 0 or 1 in 400 repeats: 1.96 standard errors of 0.025 on either side."""
    values = np.repeat([[0.0, 5.0], [1.0, 5.0]], 200, axis=0)
    low, high = statistics.mean_interval(values).T[0]
    assert (low, high) == pytest.approx((0.451, 0.549), abs=0.006)
    assert statistics.mean_interval(values).T[1].tolist() == [5, 5]
