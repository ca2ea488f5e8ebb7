"""What the loader sees in a file, what it does with it, and what it says."""

import os
import re
import sys
import warnings
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
from conftest import make_dataset

import consistency_ac
import diffusion_ql
import gtp_bc
import gtp_offline as gtp
import offline_tasks
from offline_tasks import load_dataset

SCRIPTS = (gtp, gtp_bc, diffusion_ql, consistency_ac)
SCRIPT = pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)


def numbered(terminals, timeouts=None, **more):
    """Row i has observation i, action i / 100 and reward 2^i."""
    i = np.arange(len(terminals), dtype=np.float32)
    data = {"observations": i[:, None], "actions": i[:, None] / 100, "rewards": 2**i}
    data |= {"terminals": np.array(terminals)} | more
    return data if timeouts is None else data | {"timeouts": np.array(timeouts)}


def write(path, data):
    np.savez(path, **data)
    return path


@pytest.fixture
def load(tmp_path, capsys):
    """load(data, **options): the transitions of such a file, and what was said."""

    def run(data, **options):
        capsys.readouterr()
        loaded = load_dataset(write(tmp_path / "f.npz", data), **options)[0]
        said = capsys.readouterr()
        return loaded, said.err, said.out

    return run


def steps(loaded):
    """(observation, next observation) of each transition."""
    both = np.concatenate((loaded["observations"], loaded["next_observations"]), 1)
    return [tuple(pair) for pair in both.astype(int).tolist()]


# ---- keys ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["npz", "hdf5"])
def test_gymnasiums_keys_are_d4rls(suffix, tmp_path):
    data = make_dataset()
    expected = gtp.load_transitions(write(tmp_path / "d4rl.npz", data))
    data["terminations"] = data.pop("terminals")
    data["truncations"] = data.pop("timeouts")
    path = tmp_path / f"gymnasium.{suffix}"
    if suffix == "npz":
        np.savez(path, **data)
    else:
        with h5py.File(path, "w") as file:
            file.update(data)
    found = gtp.load_transitions(path)
    assert len(found["rewards"]) == 234 and found["terminals"].sum() == 6
    for key, array in expected.items():
        np.testing.assert_array_equal(found[key], array, err_msg=key)


@pytest.mark.parametrize("rule", [True, False])
def test_both_names_of_an_array_may_stand_for_the_same_alone(rule, load):
    """Equal ones in any type; else nobody knows which is meant."""
    ends = numbered([0, 0, 1, 0], [0, 1, 0, 0])
    alike = {"terminations": np.array([False, False, True, False])}
    alike |= {"truncations": np.array([[0.0], [1], [0], [0]])}
    loaded, _, _ = load(ends | alike, d4rl_semantics=rule)
    assert loaded["terminals"].tolist() == [0, 1]
    for key, other in (("terminals", "terminations"), ("timeouts", "truncations")):
        said = f"cannot be read.*: {key} and {other} differ, .*; remove one of them$"
        for array in ([1, 1, 1, 1], [0, 1, 1, 0], [0, 0]):
            with pytest.raises(ValueError, match=said) as error:
                load(ends | alike | {other: np.array(array)}, d4rl_semantics=rule)
            assert "\n" not in str(error.value)


@pytest.mark.parametrize("key", ["terminals", "timeouts", "terminations", "truncations"])
@pytest.mark.parametrize("value", [-1, 2, 255, 0.5])
def test_flags_are_0_or_1(key, value, load):
    data = numbered([0, 0, 1, 0], [0, 0, 0, 1])
    name = {"terminations": "terminals", "truncations": "timeouts"}.get(key, key)
    data[key] = data.pop(name).astype(np.float32)
    data[key][[1, 2]] = value
    said = f"{name} is {value} in 2 rows, first in row 1; write 1 for the last row of an episode"
    with pytest.raises(ValueError, match=said):
        load(data)


def test_a_file_with_neither_key_names_both(load):
    data = numbered([0, 0, 1])
    del data["terminals"]
    with pytest.raises(ValueError, match=r"cannot be read.*no terminals or terminations"):
        load(data)


# ---- order ---------------------------------------------------------------------------------------


def test_next_observations_of_rows_in_the_order_of_time_are_the_next_rows(load):
    """What stands at the ends of episodes does not matter: here a reset's observation, and NaN."""
    data = numbered([0, 1, 0, 0, 0], [0, 0, 0, 1, 0])
    data["next_observations"] = np.array([[1], [np.nan], [3], [77], [88]])
    loaded, said, _ = load(data)
    assert steps(loaded) == [(0, 1), (1, 2), (2, 3)]
    line = "rows are in the order of time: the next row is the next observation\n"
    assert said.endswith(line) and said.count("\n") == 1


def test_next_observations_of_rows_in_another_order_are_used_and_none_is_dropped(load):
    data = numbered([0, 1, 0, 0, 0], [0, 0, 0, 1, 0])
    data["next_observations"] = np.array([[50], [60], [3], [80], [90]])
    loaded, said, summary = load(data)
    assert steps(loaded) == [(0, 50), (1, 60), (2, 3), (3, 80), (4, 90)]
    assert loaded["rewards"].tolist() == [1, 2, 4, 8, 16]
    assert loaded["terminals"].tolist() == [0, 1, 0, 0, 0]
    line = "rows are not in the order of time: next_observations are used (1 of 2 are not the next"
    assert line in said and said.count("\n") == 1
    assert "5 transitions of 5 rows; rows in no order of time, so episodes are unknown" in summary


def test_a_single_row_out_of_order_is_enough(load):
    """An end of an episode that the file does not mark."""
    data = numbered([0] * 9 + [1])
    following = data["observations"] + 1
    following[4] = 40
    loaded, said, _ = load(data | {"next_observations": following})
    assert steps(loaded)[4] == (4, 40) and len(loaded["rewards"]) == 10
    assert "(1 of 9 are not the next row)" in said


def test_rows_that_all_end_have_their_own_next_observations(load):
    data = numbered([1, 1, 0], [0, 0, 1], next_observations=np.array([[5], [6], [7]]))
    assert steps(load(data)[0]) == [(0, 5), (1, 6), (2, 7)]


def test_d4rls_rule_does_not_look_at_next_observations(load):
    data = numbered([0, 0, 0], [0, 0, 0], next_observations=np.array([[5], [6], [7]]))
    loaded, said, _ = load(data, d4rl_semantics=True)
    assert steps(loaded) == [(0, 1), (1, 2)] and "order" not in said


@pytest.mark.parametrize("shape", [(4, 2), (3, 1), (4,)])
def test_next_observations_of_another_shape_are_refused(shape, load):
    with pytest.raises(ValueError, match="next_observations needs a row per step"):
        load(numbered([0, 0, 0, 1], next_observations=np.zeros(shape)))


def test_ends_of_another_length_are_refused_beside_next_observations(load):
    data = numbered([0, 0, 0, 1], [0, 0, 1], next_observations=np.zeros((4, 1)))
    with pytest.raises(ValueError, match="timeouts needs a row per step"):
        load(data)


# ---- ends of episodes ----------------------------------------------------------------------------

# 6 rows: 1 terminal, 3 both, 4 timed out, 5 the last
BOTH = ([0, 1, 0, 1, 0, 0], [0, 0, 0, 1, 1, 0])


def test_a_terminal_row_that_timed_out_keeps_reward_and_terminal(load):
    loaded, _, summary = load(numbered(*BOTH))
    assert steps(loaded) == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert loaded["rewards"].tolist() == [1, 2, 4, 8]
    assert loaded["terminals"].tolist() == [0, 1, 0, 1]
    assert "dropped: 1 rows that timed out, the last row, its reward 32" in summary


def test_d4rls_rule_drops_it_and_says_so(load):
    loaded, _, summary = load(numbered(*BOTH), d4rl_semantics=True)
    assert steps(loaded) == [(0, 1), (1, 2), (2, 3)]
    line = "dropped: 2 rows that timed out (1 of them terminal), the last row, its reward 32"
    assert line in summary


def test_a_terminal_last_row_is_a_transition(load):
    data = numbered([0, 0, 1])
    loaded, _, summary = load(data)
    assert loaded["rewards"].tolist() == [1, 2, 4] and loaded["terminals"].tolist() == [0, 0, 1]
    assert "dropped: nothing" in summary
    loaded, _, summary = load(data, d4rl_semantics=True)
    assert loaded["rewards"].tolist() == [1, 2] and "the last row, its reward 4" in summary


@SCRIPT
def test_d4rls_rule_is_the_default_of_d4rls_tasks_alone(script):
    for env_id in ("hopper-medium-v2", "antmaze-umaze-v0", "walker2d-medium-expert-v2"):
        assert script.default_args(env_id).d4rl_semantics
        assert script.default_args(env_id, "file.npz").d4rl_semantics
    for env_id in ("pointmaze-umaze-v0", "multigoal-v0", "Pendulum-v1", ""):
        assert not script.default_args(env_id, "file.npz").d4rl_semantics


@SCRIPT
@pytest.mark.parametrize(("rule", "count"), [(True, 3), (False, 4)])
def test_the_flag_reaches_the_data(script, rule, count, tmp_path):
    path = write(tmp_path / "f.npz", numbered(*BOTH))
    args = script.default_args(dataset_path=str(path), device="cpu")
    data, _, about = script.load_data(replace(args, d4rl_semantics=rule))
    assert len(data["rewards"]) == about["transitions"] == count


def test_without_timeouts_the_tasks_limit_ends_an_episode(load):
    """Pendulum's 200 steps, from 0 after a terminal row, and said."""
    rng = np.random.default_rng(0)
    data = {"observations": rng.standard_normal((600, 3)), "actions": np.zeros((600, 1))}
    data |= {"rewards": np.zeros(600), "terminals": np.arange(600) == 49}
    loaded, _, summary = load(data, env_id="Pendulum-v1")
    kept = np.delete(np.arange(600), [249, 449, 599])
    np.testing.assert_array_equal(loaded["observations"], data["observations"][kept].astype("f"))
    assert "1 terminals, 3 timeouts (counted, 200 steps)" not in summary
    assert "4 episodes, 1 terminals, 2 timeouts (counted, 200 steps)" in summary


@pytest.mark.parametrize("timeouts", [None, [0, 0, 0, 0]])
def test_a_file_that_marks_no_end_gets_a_warning_with_the_remedy(timeouts, load):
    loaded, said, summary = load(numbered([0, 0, 0, 0], timeouts))
    assert len(loaded["rewards"]) == 3 and "1 episodes, 0 terminals, 0 timeouts" in summary
    assert "warning: no row ends an episode" in said and said.count("\n") == 1
    assert "mark the last row of each episode in terminals" in said
    for ends in ([0, 0, 0, 1], [1, 0, 0, 0]):
        assert load(numbered(ends, timeouts))[1] == ""
        assert load(numbered([0, 0, 0, 0], ends))[1] == ""


# ---- bad and badly scaled numbers ----------------------------------------------------------------


@pytest.mark.parametrize("key", ["observations", "actions", "rewards", "terminals"])
def test_a_number_that_is_none_is_named_with_its_episode(key, load):
    data = numbered([0, 0, 1, 0, 0, 0, 1, 0], [0, 0, 0, 0, 1, 0, 0, 0])
    data[key] = data[key].astype(np.float32)
    data[key][[3, 6]] = np.nan
    where = f"{key} has NaN or infinity in 2 rows, first in row 3, of episode 1; "
    with pytest.raises(ValueError, match=where + "cut out that whole episode, rows 3 to 4, not"):
        load(data)


def test_rows_in_no_order_may_be_removed_alone(load):
    data = numbered([0, 0, 0], next_observations=np.array([[5], [np.nan], [7]]))
    said = "next_observations has NaN or infinity in 1 rows, first in row 1; remove those rows"
    with pytest.raises(ValueError, match=said):
        load(data)


def test_what_follows_terminal_rows_in_no_order_need_not_be_known(load):
    """Without these rows no terminal reward would be left."""
    data = numbered([0, 1, 0, 1], next_observations=np.array([[5], [np.nan], [9], [np.nan]]))
    said = "in 2 rows, first in row 1; nothing follows those that are terminal: write 0 there$"
    with pytest.raises(ValueError, match=said):
        load(data)
    data["next_observations"] = np.nan_to_num(data["next_observations"])
    assert load(data)[0]["terminals"].tolist() == [0, 1, 0, 1]
    data["next_observations"][:2] = np.nan  # one of them is not terminal
    with pytest.raises(ValueError, match=r"terminal: write 0 there, and remove the others$"):
        load(data)


def test_next_observations_that_are_all_nan_are_said(load, capsys):
    """Not that rows are in another order, which nobody can see."""
    data = numbered([0, 0, 0, 1], next_observations=np.full((4, 1), np.nan))
    said = "next_observations has NaN or infinity in every row; leave it out where the next row is"
    with pytest.raises(ValueError, match=said):
        load(data)
    assert capsys.readouterr().err == ""


def test_masks_that_contradict_terminals_are_refused_and_the_remedy_works(load):
    """OGBench's own dictionaries: terminals are the ends of trajectories, masks 0 at success."""
    ends = np.array([0, 0, 1, 0, 0, 1])
    masks = np.array([1, 0, 1, 1, 1, 1])
    said = "masks and terminals do not say the same: save 1 - masks as terminals"
    with pytest.raises(ValueError, match=said):
        load(numbered(ends, masks=masks))
    loaded = load(numbered(1 - masks, timeouts=ends))[0]
    assert steps(loaded) == [(0, 1), (1, 2), (3, 4), (4, 5)]
    assert loaded["terminals"].tolist() == [0, 1, 0, 0]
    assert steps(load(numbered(ends, masks=1 - ends))[0])  # they say the same


@pytest.mark.parametrize("key", ["actions", "rewards", "observations"])
def test_nan_in_rows_that_give_no_transition_has_its_own_remedy(key, load):
    """A log of T + 1 rows an episode, whose last action and reward are void; its observation is
    what the row before leads to."""
    data = numbered([0] * 4, timeouts=[0, 1, 0, 1])
    data[key] = data[key].astype(np.float32)
    data[key][1::2] = np.nan
    remedy = "these rows timed out and give no transition: write 0 there"
    if key == "observations":
        remedy = "cut out that whole episode, rows 0 to 1"
    with pytest.raises(ValueError, match=f"{key} has NaN or infinity in 2 rows.*; {remedy}"):
        load(data)
    data[key][1::2] = 0
    load(data)
    data[key][:] = np.nan  # also in rows that do
    with pytest.raises(ValueError, match="cut out that whole episode"):
        load(data)


def test_timeouts_that_are_all_nan_are_to_be_replaced(load):
    with pytest.raises(ValueError, match=r"timeouts has NaN .*; write 0 or 1 there"):
        load(numbered([0, 0, 1], timeouts=[np.nan, np.nan, np.nan]))


@pytest.mark.parametrize(
    ("rewards", "terminal", "said"),
    [
        ([0, 0, 0, 0], 0, "every reward is 0 and no state is terminal"),
        ([-1, -1, -1, -1], 0, "every reward is -1 and no state is terminal"),
        ([-1, -1, -1, -1], 1, None),  # the time to the goal
        ([0, 0, 1, 0], 0, None),
    ],
)
def test_rewards_that_say_nothing_of_the_actions_are_warned_of(rewards, terminal, said, load):
    data = numbered([0, 0, 0, terminal])
    data["rewards"] = np.float32(rewards)
    data["timeouts"] = np.array([0, 0, 0, 1 - terminal])
    line = load(data)[1]
    assert (f"{said}, so all actions are worth the same" in line) == bool(said)
    assert ("every reward" in line) == bool(said)


def test_nan_in_both_observations_is_no_other_order(load):
    """So the whole episode is to be cut out."""
    data = numbered([0, 0, 0, 1])
    data["observations"][2] = np.nan
    data["next_observations"] = np.float32([[1], [np.nan], [3], [9]])
    said = "observations has NaN .* in row 2, of episode 0; cut out that whole episode, rows 0 to 3"
    with pytest.raises(ValueError, match=said):
        load(data)


@pytest.mark.parametrize(
    ("scales", "offset", "said"),
    [
        ((1, 2e3), 0, "observations reach .*, their scales differ by 2e\\+03"),
        ((1, 1), 1.1e3, r"observations reach 1.1e\+03, their scales differ by 1"),
        ((1e-3, 2), 0, "scales differ by 2e\\+03"),
        ((1, 900), 0, None),
        ((1, 0), 0, None),  # a constant column has no scale
        ((0, 0), 990, None),
    ],
)
def test_scales_of_observations_are_warned_of_where_nothing_brings_them_together(
    scales, offset, said, load
):
    pattern = np.array([[1, 1], [-1, 1], [1, -1], [-1, -1]])
    data = {"observations": pattern * scales + offset, "actions": np.zeros((4, 1))}
    data |= {"rewards": np.ones(4), "terminals": np.array([0, 0, 0, 1])}
    assert load(data)[1] == ""
    _, line, _ = load(data, normalized=False)
    if said is None:
        assert line == ""
    else:
        assert line.count("\n") == 1 and line.endswith("add --normalize-observations\n")
        assert re.search(said, line)


@SCRIPT
@pytest.mark.parametrize(("spread", "scaled"), [(0, False), (1e-7, False), (1e-5, True)])
def test_observations_that_hardly_vary_are_named_and_not_scaled(script, spread, scaled, capsys):
    obs = torch.zeros(100, 3)
    obs[:50, 1] = 2 * spread
    obs[:, 2] = torch.arange(100.0)
    nets = {"net": torch.nn.Module()}
    nets["net"].register_buffer("obs_mean", torch.zeros(3))
    nets["net"].register_buffer("obs_std", torch.zeros(3))
    script.standardize(nets, {"observations": obs})
    named = [0] if scaled else [0, 1]
    line = f"observations {named} do not vary by 1e-6; they are not scaled\n"
    assert capsys.readouterr().err == line
    expected = [1, spread if scaled else 1, np.std(range(100))]
    np.testing.assert_allclose(nets["net"].obs_std, expected, rtol=1e-5)
    np.testing.assert_allclose(nets["net"].obs_mean, [0, spread, 49.5], rtol=1e-5)


@SCRIPT
def test_the_scripts_flag_decides_on_the_warning(script, tmp_path, capsys):
    data = numbered([0, 0, 0, 1])
    data["observations"] *= 1e3
    path = write(tmp_path / "f.npz", data)
    args = script.default_args(dataset_path=str(path), device="cpu")
    for normalized in (True, False):
        capsys.readouterr()
        script.load_data(replace(args, normalize_observations=normalized))
        assert ("add --normalize-observations" in capsys.readouterr().err) != normalized


def with_offset(offset, spread, key="observations", kind=np.float64):
    """400 rows whose `key`, in its last column, varies by `spread` around an offset."""
    rng = np.random.default_rng(0)
    data = {"observations": rng.standard_normal((400, 3)), "actions": rng.uniform(-1, 1, (400, 2))}
    data |= {"rewards": rng.standard_normal(400), "terminals": np.arange(400) % 20 == 19}
    if key == "next_observations":
        data[key] = data["observations"].copy()
    data[key].T[-1 if data[key].ndim > 1 else ...] = offset + spread * rng.standard_normal(400)
    return data | {key: data[key].astype(kind)}


@pytest.mark.parametrize("suffix", [".npz", ".hdf5"])
@pytest.mark.parametrize(
    ("key", "named"),
    [("observations", " [2]"), ("next_observations", " [2]"), ("rewards", "")],
)
def test_differences_that_float32_rounds_away_are_said(key, named, suffix, tmp_path, capsys):
    """Numbers between 2^21 and 2^22 are quarters: the error is 0.25 / sqrt(12), 36 % of 0.2."""
    data = with_offset(4e6, 0.2, key)
    path = tmp_path / f"f{suffix}"
    if suffix == ".npz":
        write(path, data)
    else:
        with h5py.File(path, "w") as file:
            file.update(data)
    load_dataset(path)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert line.startswith(f"dataset {path}: warning: {key}{named} lose their differences in float")
    share = float(re.search(r"rounding is ([\d.]+) % of their", line)[1])
    assert abs(share - 36) < 4
    with offline_tasks.arrays.quiet():
        load_dataset(path)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("offset", "spread", "kind"),
    [
        (4e6, 0.2, np.float32),  # as the file has them
        (4e6, 1e3, np.float64),
        (1e4, 5.0, np.float64),
        (0.8, 1e-8, np.float64),  # a thing at rest in a simulator
        (0.1, 0.0, np.float64),
        (0, 1e3, np.int64),
    ],
)
def test_differences_that_float32_keeps_are_not_spoken_of(offset, spread, kind, load):
    assert load(with_offset(offset, spread, kind=kind))[1] == ""


@pytest.mark.parametrize("kind", [np.float64, np.int64])
def test_a_column_that_is_constant_in_float32_alone_is_refused(kind, load):
    """Not called one that does not vary: Unix times of a minute, 128 s apart in float32."""
    said = r"observations \[2\] vary, but are one number in float32; subtract an offset in the file"
    with pytest.raises(ValueError, match=said):
        load(with_offset(1_700_000_000, 5.0, kind=kind))


# ---- the summary ---------------------------------------------------------------------------------


def test_the_summary_by_hand(load, tmp_path):
    """Three episodes, of returns 1 + 2, 4 + 8 and 16; the last row, 32, is one of its own."""
    data = numbered([0, 1, 0, 0, 1, 0], [0, 0, 0, 1, 0, 0])
    _, said, summary = load(data)
    assert said == ""
    assert summary == (
        f"dataset {tmp_path}/f.npz: 4 transitions of 6 rows; 4 episodes, 2 terminals, 1 timeouts; "
        "return per episode 3 (least), 15.75 (mean), 32 (most); actions from 0 to 0.04; "
        "dropped: 1 rows that timed out, the last row, its reward 32\n"
    )


def test_a_last_row_that_timed_out_is_counted_once(load):
    _, _, summary = load(numbered([0, 0, 0], [0, 0, 1]))
    assert summary.endswith("dropped: 1 rows that timed out\n")


def test_timeouts_of_the_file_are_not_called_counted(load):
    data = {"observations": np.zeros((4, 3)), "actions": np.zeros((4, 1)), "rewards": np.ones(4)}
    data |= {"terminals": np.zeros(4), "timeouts": np.array([0, 1, 0, 1])}
    _, _, summary = load(data, env_id="Pendulum-v1")
    assert "2 episodes, 0 terminals, 2 timeouts; return per episode 2 (least)" in summary


def test_a_source_may_say_where_episodes_end(load, monkeypatch):
    """Its next_observations are used, and terminals need not be ends."""
    arrays = numbered([1, 1, 0, 1], ends=np.float32([0, 1, 0, 1]))
    arrays = {key: np.float32(array) for key, array in arrays.items()}
    arrays["next_observations"] = arrays["observations"] + 0.5
    checked = offline_tasks.arrays.check_arrays("f", dict(arrays), 2)
    assert checked["timeouts"].tolist() == [0, 0, 0, 0]  # no limit ends what has its own ends
    broken = arrays | {"rewards": np.float32([0, 0, np.nan, 0])}
    with pytest.raises(ValueError, match="in row 2, of episode 1; cut out that whole episode"):
        offline_tasks.arrays.check_arrays("f", broken)
    monkeypatch.setattr(offline_tasks.loading, "read_arrays", lambda *args: dict(arrays))
    loaded, _, summary = load(numbered([0, 1]))
    np.testing.assert_array_equal(loaded["next_observations"], arrays["next_observations"])
    assert "4 transitions of 4 rows; 2 episodes, 3 terminals, 0 timeouts" in summary
    assert "return per episode 3 (least), 7.5 (mean), 12 (most)" in summary


def test_jumps_that_are_fixed_are_counted(load):
    data = make_dataset(rows=40, obs_dim=29, action_dim=8)
    data["observations"] = np.repeat(np.arange(40, dtype=np.float32)[:, None] * 0.1, 29, 1)
    data["observations"][25:, 0] += 5
    _, _, summary = load(data, env_id="antmaze-umaze-v0", fix_timeouts=True)
    assert "38 transitions of 40 rows" in summary and "1 jumps" in summary


def test_an_evaluation_does_not_describe_the_data_again(tmp_path, capsys):
    path = write(tmp_path / "f.npz", numbered([0, 0, 0]))
    with offline_tasks.quiet():
        load_dataset(path)
    assert capsys.readouterr() == ("", "")
    load_dataset(path)
    assert "no row ends" in capsys.readouterr().err


# ---- rewards -------------------------------------------------------------------------------------


@SCRIPT
def test_rewards_are_standardised_before_they_are_scaled(script, tmp_path):
    """Of the transitions 1, 2, 4, 8: mean 3.75 and standard deviation with n - 1."""
    path = write(tmp_path / "f.npz", numbered(*BOTH))
    args = script.default_args(dataset_path=str(path), device="cpu")
    assert args.reward_normalization == "none"
    args = replace(args, reward_normalization="std", reward_scale=3.0, reward_shift=0.5)
    data, _, _ = script.load_data(args)
    rewards = np.array([1, 2, 4, 8])
    std = np.sqrt(((rewards - 3.75) ** 2).sum() / 3)
    expected = 3 * ((rewards - 3.75) / std + 0.5)
    np.testing.assert_allclose(data["rewards"].numpy(), expected, rtol=1e-6)


@SCRIPT
@pytest.mark.parametrize("size", [1e-25, 1e20])
def test_rewards_of_any_size_are_standardised_without_a_warning(script, size, tmp_path, recwarn):
    """Their squares are beyond float32."""
    data = numbered(*BOTH)
    data["rewards"] = np.float32(data["rewards"] * size)
    path = write(tmp_path / "f.npz", data)
    args = script.default_args(dataset_path=str(path), device="cpu")
    data, _, _ = script.load_data(replace(args, reward_normalization="std"))
    rewards = np.array([1, 2, 4, 8])
    expected = (rewards - 3.75) / rewards.std(ddof=1)
    np.testing.assert_allclose(data["rewards"].numpy(), expected, rtol=1e-5)
    assert data["rewards"].dtype == torch.float32
    assert not recwarn.list


@SCRIPT
def test_rewards_that_their_scale_takes_beyond_float32_are_refused(script, tmp_path, recwarn):
    data = numbered(*BOTH)
    data["rewards"] = np.float32(data["rewards"] * 1e30)
    path = write(tmp_path / "f.npz", data)
    args = script.default_args(dataset_path=str(path), device="cpu")
    said = r"rewards times --reward-scale 1e\+10 are beyond float32; make it smaller"
    with pytest.raises(ValueError, match=said):
        script.load_data(replace(args, reward_scale=1e10))
    assert not recwarn.list


def test_rewards_that_do_not_vary_cannot_be_standardised(tmp_path):
    data = numbered(*BOTH)
    data["rewards"][:] = 1
    args = gtp.default_args(dataset_path=str(write(tmp_path / "f.npz", data)), device="cpu")
    gtp.load_data(args)
    with pytest.raises(ValueError, match=r"rewards do not vary; .*--reward-normalization std"):
        gtp.load_data(replace(args, reward_normalization="std"))


# ---- a script alone ------------------------------------------------------------------------------


@pytest.fixture
def alone(monkeypatch, tmp_path):
    """Scripts without the folder beside them."""
    for script in SCRIPTS:
        monkeypatch.setattr(script, "TASKS_FOLDER", tmp_path / "absent")


@SCRIPT
@pytest.mark.parametrize("rule", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_a_script_alone_reads_d4rls_keys_alike(script, rule, seed, tmp_path, monkeypatch, alone):
    rng = np.random.default_rng(seed)
    data = make_dataset(60, seed=seed)
    data["terminals"] = rng.random(60) < 0.2
    data["timeouts"] = rng.random(60) < 0.2
    if seed == 2:
        del data["timeouts"]
    expected = offline_tasks.load_transitions(write(tmp_path / "f.npz", data), None, rule)
    found = script.load_transitions(tmp_path / "f.npz", d4rl_semantics=rule)
    assert found.keys() == expected.keys()
    for key, array in expected.items():
        np.testing.assert_array_equal(found[key], array, err_msg=key)
        assert found[key].dtype == np.float32
    args = script.default_args(dataset_path=str(tmp_path / "f.npz"), device="cpu")
    loaded, _, about = script.load_data(replace(args, d4rl_semantics=rule))
    assert len(loaded["rewards"]) == len(found["rewards"]) and about["action_bounds"] == [-1, 1]


@SCRIPT
def test_next_observations_that_d4rls_rule_ignores_are_said(script, tmp_path, capsys):
    """Of one's own shuffled buffer, given for a task of D4RL's; not of rows in order of time, but
    for a few, nor of what is not even numbers: the rule does not look there."""
    rng = np.random.default_rng(0)
    data = make_dataset(obs_dim=11, action_dim=3)
    data["next_observations"] = np.roll(data["observations"], -1, 0)
    order = rng.permutation(240)
    said = "next_observations are ignored (227 of 227 are not the next row); --no-d4rl-semantics"
    for name, rows, line in (("f", np.arange(240), ""), ("g", order, said)):
        path = write(tmp_path / f"{name}.npz", {key: array[rows] for key, array in data.items()})
        args = script.default_args("hopper-medium-v2", dataset_path=str(path), device="cpu")
        assert args.d4rl_semantics
        script.load_data(args)
        warned = capsys.readouterr().err
        assert line in warned and bool(line) == ("next_observations" in warned)
    order_of_time = np.arange(240)
    ignored = {
        "few": np.where(order_of_time[:, None] == 7, 9, data["next_observations"]),
        "nan": np.full((240, 11), np.nan),
        "text": np.full(240, "x"),
        "short": np.zeros((3, 11)),
    }
    for name, following in ignored.items():
        write(tmp_path / "h.npz", data | {"next_observations": following})
        script.load_data(replace(args, dataset_path=str(tmp_path / "h.npz")))
        assert "next_observations" not in capsys.readouterr().err, name
    found, _, _ = script.load_data(replace(args, d4rl_semantics=False))
    following = data["next_observations"][order]
    np.testing.assert_array_equal(found["next_observations"], following)


@SCRIPT
@pytest.mark.parametrize("given", [False, True])
def test_a_script_alone_says_that_it_ignores_next_observations(
    script, given, tmp_path, alone, capsys
):
    data = make_dataset()
    if given:
        data["next_observations"] = data["observations"][::-1]
    found = script.load_transitions(write(tmp_path / "f.npz", data))
    np.testing.assert_array_equal(found["next_observations"][0], data["observations"][1])
    said = "f.npz: next rows are taken; next_observations are ignored" in capsys.readouterr().out
    assert said == given


@pytest.mark.parametrize("change", ["rewards", 1.5, np.nan])
def test_a_script_alone_refuses_what_it_cannot_use(change, tmp_path, alone):
    data = make_dataset()
    if change == "rewards":
        del data["rewards"]
    else:
        data["actions"][3, 1] = change
    said = {"rewards": "rewards", 1.5: r"actions are beyond \[-1, 1\]"}.get(
        change, "finite float32 numbers"
    )
    with pytest.raises(ValueError, match=f"dataset .*f.npz.*{said}") as error:
        gtp.load_transitions(write(tmp_path / "f.npz", data))
    assert "\n" not in str(error.value)


@SCRIPT
@pytest.mark.parametrize("key", ["observations", "rewards", "timeouts"])
def test_a_script_alone_refuses_nan_and_rows_without_columns(script, key, tmp_path, alone):
    data = make_dataset()
    data["timeouts"] = np.zeros(len(data["rewards"]), np.float32)
    data[key][3] = np.nan
    flat = make_dataset()
    flat["observations"] = flat["observations"][:, 0]
    for bad in (data, flat):
        path = write(tmp_path / "f.npz", bad)
        with pytest.raises(ValueError, match=f"{path}: give a row of finite float32 numbers"):
            script.load_transitions(path)


@SCRIPT
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: {"actions": data["actions"][:-3]}, r"row .* a step \(actions\)"),
        (lambda data: {"rewards": data["rewards"][:-3]}, r"row .* a step \(rewards\)"),
        (lambda data: {"rewards": np.float32(1)}, r"row .* a step \(rewards\)"),
        (lambda data: {"rewards": data["rewards"] * 1j}, "cannot be read .*rewards is .*TypeError"),
        (lambda data: {"terminals": data["terminals"] / 2}, r"0 and 1 alone \(terminals\)"),
        (lambda data: {"timeouts": 1 - data["terminals"]}, "no row has a next one"),
    ],
)
def test_a_script_alone_refuses_other_layouts(script, change, said, tmp_path, alone):
    data = make_dataset()
    data["terminals"] = np.zeros(len(data["rewards"]), np.float32)
    if said == r"0 and 1 alone \(terminals\)":
        data["terminals"][5] = 1
    path = write(tmp_path / "f.npz", data | change(data))
    with pytest.raises(ValueError, match=f"dataset {path}.*{said}"):
        script.load_transitions(path)


@SCRIPT
def test_a_script_alone_reads_gymnasiums_names(script, tmp_path, alone):
    data = make_dataset(60)
    data["timeouts"] = np.zeros(60, np.float32)
    data["timeouts"][[7, 30]] = 1
    expected = script.load_transitions(write(tmp_path / "f.npz", data))
    others = {"terminals": "terminations", "timeouts": "truncations"}
    renamed = {others.get(key, key): array for key, array in data.items()}
    found = script.load_transitions(write(tmp_path / "g.npz", renamed))
    for key, array in expected.items():
        np.testing.assert_array_equal(found[key], array, err_msg=key)


@SCRIPT
def test_a_script_alone_waits_for_no_pipe(script, tmp_path, alone):
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "absent"):
        with pytest.raises(ValueError, match=f"{tmp_path}/{name} cannot be read: .*no such file"):
            script.load_transitions(tmp_path / name)


@SCRIPT
@pytest.mark.parametrize("key", ["observations", "actions", "rewards"])
def test_a_script_alone_refuses_what_float32_cannot_hold(script, key, tmp_path, alone):
    """In its own line: NumPy would warn of the overflow in two more."""
    data = make_dataset()
    data[key] = data[key].astype(np.float64)
    data[key][3] = 1e300
    path = write(tmp_path / "f.npz", data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=rf"finite float32 numbers a step \({key}\)$"):
            script.load_transitions(path)


@SCRIPT
@pytest.mark.parametrize("kind", ["hdf5 cut off", "npz cut off", "text", "link"])
def test_a_script_alone_says_in_own_words_what_it_cannot_read(script, kind, tmp_path, alone):
    """And not in h5py's, which are about its own functions."""
    path = tmp_path / "f"
    data = make_dataset()
    if kind == "text":
        path.write_bytes(b"observations")
    elif kind == "npz cut off":
        with path.open("wb") as file:
            np.savez(file, **data)
    else:
        if kind == "link":
            data["rewards"] = h5py.SoftLink("/absent")
        with h5py.File(path, "w") as file:
            for key, value in data.items():
                file[key] = value
    if "cut off" in kind:
        path.write_bytes(path.read_bytes()[:5000])
    what = "rewards" if kind == "link" else "the file"
    named = {"link": "KeyError"}.get(kind, "OSError")
    said = f"{what} is absent, damaged or of another kind \\({named}\\)$"
    with pytest.raises(ValueError, match=f"dataset {path} cannot be read as HDF5 or NPZ: {said}"):
        script.load_transitions(path)


@SCRIPT
def test_a_script_alone_names_the_flag_that_needs_the_tasks(script, dataset, alone):
    args = script.default_args(dataset_path=str(dataset), device="cpu")
    said = "--fix-timeouts needs .*/absent; leave it out$"
    with pytest.raises(ValueError, match=f"^{said}"):
        script.load_data(replace(args, fix_timeouts=True))


@SCRIPT
def test_a_message_of_the_loader_ends_a_run_before_it_starts(script, tmp_path, monkeypatch, capsys):
    data = numbered([0, 0, 1, 0])
    data["rewards"][3] = np.inf
    path = write(tmp_path / "f.npz", data)
    words = ["x.py", "--dataset-path", str(path), "--device", "cpu", "--run-dir", "run"]
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.chdir(tmp_path)
    assert script.main() == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: dataset {path}: rewards has NaN or infinity in 1 rows")
    assert not (tmp_path / "run").exists()
