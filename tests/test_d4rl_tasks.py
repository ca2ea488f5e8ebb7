"""d4rl_tasks: physics against recordings of the real D4RL, mazes, evaluation, scores, pictures."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import d4rl_tasks
from d4rl_tasks import evaluate, make_env

ROOT = Path(__file__).resolve().parent.parent
RECORDED = np.load(Path(__file__).parent / "fixtures" / "d4rl-mujoco210-trajectories.npz")
REPLAYED = sorted({key.split("/")[0] for key in RECORDED})
MULTIGOAL = list(d4rl_tasks.MULTIGOAL_REWARDS)


def run_python(code, folder=None, **environment):
    """In a fresh process, so that its imports and environment are its own."""
    env = {k: v for k, v in os.environ.items() if k not in ("MUJOCO_GL", "DISPLAY")}
    env |= {"PYTHONPATH": str(ROOT), "D4RL_DATASET_DIR": str(folder)} | environment
    run = subprocess.run(
        [sys.executable, "-c", code], env=env, cwd=folder, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.split()


# ---- physics -------------------------------------------------------------------------------------


def recorded(env_id, key):
    return RECORDED[f"{env_id}/{key}"]


def set_recorded_state(env, env_id):
    import mujoco

    env.reset(seed=0)
    inner = env.unwrapped
    if f"{env_id}/goal" in RECORDED:
        inner.target_goal = recorded(env_id, "goal")
    mujoco.mj_resetData(inner.model, inner.data)
    inner.set_state(recorded(env_id, "qpos0"), recorded(env_id, "qvel0"))


def replay(env, env_id):
    """Open loop: errors (50,) of observations and rewards, and the terminations."""
    set_recorded_state(env, env_id)
    obs_error, reward_error, terminals = [], [], []
    for t, action in enumerate(recorded(env_id, "actions")):
        obs, reward, terminated, _, _ = env.step(action)
        obs_error.append(np.abs(obs - recorded(env_id, "observations")[t + 1]).max())
        reward_error.append(abs(reward - recorded(env_id, "rewards")[t]))
        terminals.append(terminated)
    return np.array(obs_error), np.array(reward_error), np.array(terminals)


def test_the_recording_covers_five_tasks():
    families = [env_id.split("-")[0] for env_id in REPLAYED]
    assert sorted(families) == ["antmaze", "antmaze", "halfcheetah", "hopper", "walker2d"]


@pytest.mark.parametrize("env_id", REPLAYED)
def test_replay_of_real_d4rl(env_id):
    obs_error, reward_error, terminals = replay(make_env(env_id), env_id)
    chaotic = env_id.startswith("halfcheetah")  # rounding grows a hundred-thousandfold in 50 steps
    assert obs_error[0] < 1e-12
    assert obs_error[:20].max() < (1e-9 if chaotic else 1e-12)
    assert obs_error.max() < (1e-6 if chaotic else 1e-11)
    assert reward_error.max() < (1e-6 if chaotic else 1e-9)
    assert (terminals == recorded(env_id, "terminals")).all()


@pytest.mark.parametrize("env_id", REPLAYED)
def test_one_step_from_every_recorded_state(env_id):
    """Teacher-forced: the state is set from each recorded observation. Those of locomotion leave
    out x, on which nothing depends; Hopper's and Walker2d's clip velocities to 10, so such states
    cannot be set and are left out."""
    import mujoco

    env = make_env(env_id)
    set_recorded_state(env, env_id)
    inner, observations = env.unwrapped, recorded(env_id, "observations")
    nq, checked = inner.model.nq, 0
    for t, action in enumerate(recorded(env_id, "actions")):
        state = observations[t]
        if not env_id.startswith("antmaze"):
            state = np.r_[0.0, state]
        if env_id.startswith(("hopper", "walker2d")) and np.abs(state[nq:]).max() >= 10:
            continue
        mujoco.mj_resetData(inner.model, inner.data)
        inner.set_state(state[:nq], state[nq:])
        obs = env.step(action)[0]
        np.testing.assert_allclose(obs, observations[t + 1], rtol=0, atol=1e-12)
        checked += 1
    assert checked >= (6 if env_id.startswith("walker2d") else 50)


@pytest.mark.parametrize("env_id", ["hopper-medium-v2", "halfcheetah-medium-v2"])
def test_plain_gymnasium_does_not_replay_d4rl(env_id, tmp_path, monkeypatch):
    """Or the tests above would show nothing."""
    monkeypatch.chdir(tmp_path)  # MuJoCo logs a deprecation in a file there
    from gymnasium.envs.mujoco.half_cheetah_v4 import HalfCheetahEnv
    from gymnasium.envs.mujoco.hopper_v4 import HopperEnv

    plain = HopperEnv() if env_id.startswith("hopper") else HalfCheetahEnv()
    obs_error, _, _ = replay(plain, env_id)
    assert obs_error.max() > 1e-2


def test_actions_are_mapped_in_float32():
    """With the mapping in float64 a HalfCheetah replay is visibly off after one step."""
    env, env_id = make_env("halfcheetah-medium-v2"), "halfcheetah-medium-v2"
    set_recorded_state(env, env_id)
    action = recorded(env_id, "actions")[0]
    np.testing.assert_array_equal(
        np.float32(-1) + (action + np.float32(1)) * np.float32(0.5) * np.float32(2),
        (env.step(action), env.unwrapped.data.ctrl.astype(np.float32))[1],
    )
    assert (env.unwrapped.data.ctrl != action.astype(np.float64)).any()
    env.step(np.full(6, 7.0))
    assert (env.unwrapped.data.ctrl == 1).all()


@pytest.mark.parametrize("env_id", REPLAYED)
def test_body_masses_are_mujoco_210s_and_stay(env_id):
    env = make_env(env_id)
    family = env_id.split("-")[0]
    total = {"hopper": 15.265, "walker2d": 22.698, "antmaze": 0.8787, "halfcheetah": 14.0}[family]
    for seed in range(2):
        env.reset(seed=seed)
        env.step(np.zeros(env.action_space.shape))
        masses = env.unwrapped.model.body_mass
        assert masses.sum() == pytest.approx(total, abs=1e-3 if family != "antmaze" else 1e-4)
        # derived by mj_setConst
        assert env.unwrapped.model.body_subtreemass[0] == pytest.approx(masses.sum())
        if family == "hopper":
            np.testing.assert_allclose(masses[1:], [3.53429, 3.92699, 2.71434, 5.08938], atol=1e-5)


def test_each_environment_has_a_model_of_its_own():
    one, other = make_env("hopper-medium-v2"), make_env("hopper-medium-v2")
    one.unwrapped.model.body_mass[:] = 0
    assert other.unwrapped.model.body_mass.sum() == pytest.approx(15.265, abs=1e-3)
    assert make_env("hopper-medium-v2").unwrapped.model.body_mass.sum() > 15


@pytest.mark.parametrize("env_id", ["hopper-medium-v2", "halfcheetah-medium-expert-v2"])
def test_locomotion_reset_noise(env_id):
    env = make_env(env_id)
    scale = 5e-3 if env_id.startswith("hopper") else 0.1
    first = env.reset(seed=3)[0]
    np.testing.assert_array_equal(first, env.reset(seed=3)[0])
    rest = env.unwrapped.init_qpos[1:]
    states = np.stack([env.reset()[0] for _ in range(300)])[:, : len(rest)] - rest
    assert np.abs(states).max() <= scale
    np.testing.assert_allclose(states.std(0), scale / np.sqrt(3), rtol=0.15)


# ---- AntMaze -------------------------------------------------------------------------------------

MAPS = {
    "umaze": """
#####
#R  #
### #
#G  #
#####""",
    "medium": """
########
#R ##  #
#  #   #
##   ###
#  #   #
# #  # #
#   # G#
########""",
    "large": """
############
#R   #     #
# ## # # # #
#      #   #
# #### ### #
#  # #     #
## # # # ###
#  #   # G #
############""",
}


@pytest.mark.parametrize("maze", MAPS)
def test_walls_stand_where_the_map_has_them(maze):
    import mujoco

    env_id = next(e for e in d4rl_tasks.TASK_DIMS if e.startswith(f"antmaze-{maze}"))
    model = make_env(env_id).unwrapped.model
    boxes = model.geom_type == mujoco.mjtGeom.mjGEOM_BOX
    rows = MAPS[maze].strip("\n").split("\n")
    walls = [(i, j) for i, row in enumerate(rows) for j, cell in enumerate(row) if cell == "#"]
    expected = {(4.0 * j - 4, 4.0 * i - 4, 1.0) for i, j in walls}
    assert {tuple(p) for p in model.geom_pos[boxes]} == expected
    assert boxes.sum() == len(walls)
    assert (model.geom_size[boxes] == [2, 2, 1]).all()
    assert (model.geom_contype[boxes] == 1).all() and (model.geom_conaffinity[boxes] == 1).all()
    assert (model.geom_bodyid[boxes] == 0).all()
    assert model.opt.timestep == 0.02


@pytest.mark.parametrize(
    "env_id, cell", [("antmaze-umaze-v2", (0, 8)), ("antmaze-large-play-v2", (32, 24))]
)
def test_goals_are_spread_over_their_cell(env_id, cell):
    env = make_env(env_id)
    env.reset(seed=0)
    offsets = np.stack([env.unwrapped.draw_goal() for _ in range(3000)]) - cell
    assert offsets.min() >= 0 and offsets.max() <= 1.5
    np.testing.assert_allclose(offsets.mean(0), 0.75, atol=0.03)
    np.testing.assert_allclose(offsets.var(0), 1 / 12 + 0.25 / 12, atol=0.01)


def test_v0_keeps_its_goal_and_v2_draws_anew():
    goals = {}
    for version in ("v0", "v2"):
        env = make_env(f"antmaze-medium-diverse-{version}")
        env.reset(seed=0)
        goals[version] = [env.unwrapped.target_goal.copy()]
        for _ in range(2):
            env.reset()
            goals[version].append(env.unwrapped.target_goal.copy())
    assert np.ptp(goals["v0"], axis=0).max() == 0
    assert len({tuple(goal) for goal in goals["v2"]}) == 3
    other = make_env("antmaze-medium-diverse-v0")
    other.reset(seed=1)
    assert tuple(other.unwrapped.target_goal) != tuple(goals["v0"][0])


def test_antmaze_reset_distribution():
    env = make_env("antmaze-umaze-v0")
    states = np.stack([env.reset(seed=i)[0] for i in range(400)])
    assert states.shape == (400, 29)
    noise = np.c_[states[:, :3] - [0, 0, 0.75], states[:, 7:15]]  # all but the quaternion
    assert np.abs(noise).max() <= 0.1
    np.testing.assert_allclose(noise.std(0), 0.1 / np.sqrt(3), rtol=0.15)
    np.testing.assert_allclose(np.linalg.norm(states[:, 3:7], axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(states[:, 15:].std(0), 0.1, rtol=0.2)


@pytest.mark.parametrize("distance, reached", [(0.45, True), (0.55, False)])
def test_success_is_within_half_a_metre(distance, reached):
    env = make_env("antmaze-umaze-v0")
    env.reset(seed=0)
    obs = env.step(np.zeros(8))[0]
    env.reset(seed=0)  # the same state, though the goal is drawn but once
    env.unwrapped.target_goal = obs[:2] + distance * np.array([0.6, 0.8])
    _, reward, terminated, truncated, _ = env.step(np.zeros(8))
    assert (reward, terminated, truncated) == (float(reached), reached, False)


def test_falling_over_does_not_end_an_antmaze_episode():
    env = make_env("antmaze-umaze-v0")
    env.reset(seed=0)
    qpos = env.unwrapped.init_qpos.copy()
    qpos[2:7] = [0.4, 0, 1, 0, 0]  # on its back
    env.unwrapped.set_state(qpos, np.zeros(14))
    assert not any(env.step(np.zeros(8))[2] for _ in range(20))


def test_step_limits():
    limits = {"antmaze-umaze-v0": 700, "antmaze-umaze-diverse-v2": 700, "hopper-medium-v2": 1000}
    limits |= {"antmaze-medium-play-v0": 1000, "antmaze-large-diverse-v0": 1000}
    assert {env_id: d4rl_tasks.task_dims(env_id)[2] for env_id in limits} == limits
    env = make_env("antmaze-umaze-v0")
    env.reset(seed=0)
    ends = [env.step(np.zeros(8))[2:4] for _ in range(700)]
    assert ends[-1] == (False, True) and not any(map(any, ends[:-1]))


# ---- task names, scores, data --------------------------------------------------------------------


@pytest.mark.parametrize("env_id", d4rl_tasks.TASK_DIMS)
def test_task_dims_are_the_environments(env_id):
    env = make_env(env_id)
    dims = (*env.observation_space.shape, *env.action_space.shape)
    assert d4rl_tasks.task_dims(env_id) == (*dims, env.get_wrapper_attr("_max_episode_steps"))
    assert (env.action_space.low == -1).all() and (env.action_space.high == 1).all()
    assert env.reset(seed=0)[0].shape == dims[:1]


def test_other_gymnasium_tasks():
    assert d4rl_tasks.task_dims("Pendulum-v1") == (3, 1, 200)
    env = make_env("Pendulum-v1")
    assert env.action_space.low == -1 and env.action_space.high == 1
    result = evaluate("Pendulum-v1", lambda obs: np.zeros((len(obs), 1)), 2, 0)
    assert result["normalized_score"] is result["goal_fractions"] is None
    assert result["episodic_return"] < 0 and result["episodic_length"] == 200
    for env_id, what in (("CartPole-v1", "action"), ("Blackjack-v1", "observation")):
        with pytest.raises(ValueError, match=f"{env_id}.* {what} space"):
            d4rl_tasks.task_dims(env_id)


@pytest.mark.parametrize("call", [d4rl_tasks.check_env_id, make_env, d4rl_tasks.dataset_file])
def test_unknown_ids_list_near_ones(call):
    with pytest.raises(ValueError, match=r"'hoper-medium-v2'.*hopper-medium-v2.*--dataset-path"):
        call("hoper-medium-v2")


def test_normalized_score():
    score = d4rl_tasks.normalized_score
    np.testing.assert_allclose(score("hopper-medium-v2", [-20.272305, 3234.3]), [0, 100])
    assert score("walker2d-medium-expert-v2", 2296.9645) == pytest.approx(50, abs=1e-5)
    assert score("halfcheetah-medium-v2", 12135.0) == pytest.approx(100)
    np.testing.assert_allclose(score("antmaze-large-play-v0", [0, 1, 0.5]), [0, 100, 50])
    assert score("pen-human-v1", 3076.8331017826877) == pytest.approx(100)
    assert score("kitchen-mixed-v0", 1) == pytest.approx(25)
    np.testing.assert_allclose(score("multigoal-unequal-v0", [1, 0.25]), [100, 25])
    assert score("Pendulum-v1", [1.0]) is None


def test_fix_timeouts():
    xy = np.array([[0, 0], [0.3, 0], [0, 8], [0.2, 8], [0, 0]], dtype=np.float32)
    obs = np.c_[xy, np.zeros((5, 27), np.float32)]
    data = {
        "observations": obs[:-1],
        "next_observations": obs[1:],
        "actions": np.arange(4, dtype=np.float32)[:, None],
        "rewards": np.array([0, 0, 0, 1], np.float32),
        "terminals": np.array([0, 0, 0, 1], np.float32),
    }
    fixed = d4rl_tasks.fix_timeouts(data)
    # row 1 jumps 8 m; so does row 3, but it is terminal: its next observation is never used
    np.testing.assert_array_equal(fixed["actions"][:, 0], [0, 2, 3])
    assert set(fixed) == set(data) and {len(v) for v in fixed.values()} == {3}
    assert len(data["actions"]) == 4


def test_an_ant_cannot_jump_as_far_as_fix_timeouts_assumes():
    """Full torques, changing at random: the furthest step is well below the threshold."""
    rng, furthest = np.random.default_rng(0), 0.0
    env = make_env("antmaze-medium-play-v0")
    for episode in range(3):
        xy = env.reset(seed=episode)[0][:2]
        for t in range(150):
            if t % 3 == 0:
                action = rng.choice([-1.0, 1.0], 8)
            before, xy = xy, env.step(action)[0][:2]
            furthest = max(furthest, np.linalg.norm(xy - before))
    assert 0.1 < furthest < 0.6 * d4rl_tasks.MAX_ANT_STEP


# ---- multi-goal ----------------------------------------------------------------------------------


@pytest.fixture
def multigoal_data(tmp_path, monkeypatch):
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path))
    with np.load(d4rl_tasks.dataset_file("multigoal-v0")) as file:
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
    distance = np.linalg.norm(moved[:, None] - d4rl_tasks.GOALS, axis=-1)
    inside = distance.min(1) <= 0.2
    assert (inside == multigoal_data["terminals"]).mean() > 0.9999  # but for float32 rounding
    counts = np.bincount(distance[multigoal_data["terminals"]].argmin(1))
    np.testing.assert_array_equal(counts, len(starts) // 4)
    assert len(starts) == d4rl_tasks.MULTIGOAL_EPISODES


def test_multigoal_unequal_differs_in_the_rewards_alone(multigoal_data):
    with np.load(d4rl_tasks.dataset_file("multigoal-unequal-v0")) as file:
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


# ---- evaluation ----------------------------------------------------------------------------------


def swaying(action_dim):
    """A deterministic policy that depends on the observation."""
    weights = np.random.default_rng(0).normal(size=(29, action_dim))
    return lambda obs: np.tanh(obs @ weights[: obs.shape[1]])


def one_by_one(env_id, act, num_episodes, seed):
    returns, lengths = [], []
    for episode_seed in d4rl_tasks.episode_seeds(seed, num_episodes):
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


@pytest.mark.parametrize("env_id", ["hopper-medium-v2", "walker2d-medium-replay-v2", *MULTIGOAL])
def test_evaluate_equals_one_episode_at_a_time(env_id):
    act = swaying(d4rl_tasks.task_dims(env_id)[1])
    result = evaluate(env_id, act, 5, seed=7)
    returns, lengths = one_by_one(env_id, act, 5, seed=7)
    scores = d4rl_tasks.normalized_score(env_id, returns)
    # not to the last bit: a product with a batch may round differently from one with a row
    assert result["episodic_return"] == pytest.approx(returns.mean(), rel=1e-6, abs=1e-9)
    assert result["episodic_length"] == lengths.mean()
    assert result["normalized_score"] == pytest.approx(scores.mean(), rel=1e-6, abs=1e-9)
    assert result["normalized_score_std"] == pytest.approx(scores.std(), rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("env_id", ["hopper-medium-v2", "multigoal-v0"])
def test_evaluate_depends_on_its_seed_alone(env_id):
    act = swaying(d4rl_tasks.task_dims(env_id)[1])
    np.random.seed(0)
    state = np.random.get_state()[1].copy()
    first = evaluate(env_id, act, 4, seed=1)
    np.testing.assert_array_equal(np.random.get_state()[1], state)
    np.random.seed(5)
    assert evaluate(env_id, act, 4, seed=1) == first
    if env_id == "hopper-medium-v2":
        assert evaluate(env_id, act, 4, seed=2)["episodic_return"] != first["episodic_return"]
    assert set(d4rl_tasks.episode_seeds(1, 100)).isdisjoint(d4rl_tasks.episode_seeds(2, 100))


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
    goals, original = [], d4rl_tasks.make_env

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

    monkeypatch.setattr(d4rl_tasks, "make_env", spied)
    evaluate("antmaze-umaze-v0", lambda obs: np.zeros((len(obs), 8)), 5, seed=0)
    assert len(set(goals)) == 5


def test_evaluate_closes_its_environments_even_if_the_policy_fails(monkeypatch):
    closed, original = [], d4rl_tasks.make_env

    def spied(env_id):
        env = original(env_id)
        monkeypatch.setattr(env, "close", lambda: closed.append(env))
        return env

    monkeypatch.setattr(d4rl_tasks, "make_env", spied)
    evaluate("hopper-medium-v2", lambda obs: np.ones((len(obs), 3)), 3, seed=0)
    assert len(closed) == 3
    with pytest.raises(ZeroDivisionError):
        evaluate("hopper-medium-v2", lambda obs: 1 / 0, 3, seed=0)
    assert len(closed) == 6


@pytest.mark.parametrize("bad", [np.zeros((3, 2)), np.full((4, 2), np.nan), np.zeros(4)])
def test_evaluate_refuses_what_is_no_batch_of_actions(bad):
    with pytest.raises(ValueError, match=r"\(4, 2\)"):
        evaluate("multigoal-v0", lambda obs: bad, 4, seed=0)
    with pytest.raises(ValueError, match="num_episodes is 0"):
        evaluate("multigoal-v0", lambda obs: bad, 0, seed=0)


# ---- imports and rendering -----------------------------------------------------------------------


def test_multigoal_needs_no_mujoco(tmp_path):
    code = """
import sys, os
before = dict(os.environ)
import d4rl_tasks
heavy = {"mujoco", "gymnasium", "h5py", "matplotlib", "torch"}
print(sorted(heavy & set(sys.modules)), before == dict(os.environ))
d4rl_tasks.dataset_file("multigoal-v0")
d4rl_tasks.evaluate("multigoal-v0", lambda obs: obs, 3, 0)
print(sorted(heavy & set(sys.modules)))
d4rl_tasks.plot_trajectories("multigoal-v0", lambda obs: obs, "t.png", 0, 3)
print("matplotlib.pyplot" in sys.modules)
"""
    assert run_python(code, tmp_path) == ["[]", "True", "[]", "False"]


@pytest.mark.skipif(sys.platform != "linux", reason="EGL is Linux's")
def test_mujoco_gl_is_set_only_to_render_without_a_display():
    code = """
import os, d4rl_tasks
d4rl_tasks.make_env("multigoal-v0")
print(os.environ.get("MUJOCO_GL"))
d4rl_tasks.make_env("multigoal-v0", render_mode="rgb_array")
print(os.environ.get("MUJOCO_GL"))
"""
    assert run_python(code) == ["None", "egl"]
    assert run_python(code, MUJOCO_GL="osmesa") == ["osmesa", "osmesa"]
    assert run_python(code, DISPLAY=":0") == ["None", "None"]


def test_make_env_warns_of_nothing():
    code = "import d4rl_tasks\nfor e in d4rl_tasks.TASK_DIMS: d4rl_tasks.make_env(e).reset(seed=0)"
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], env=env, capture_output=True, text=True
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


# ---- pictures ------------------------------------------------------------------------------------

PNG = b"\x89PNG\r\n\x1a\n"


def evaluation(update, **values):
    keys = ["energy_score", "energy_score_by_steps", "normalized_score", "normalized_score_std"]
    keys += ["episodic_return", "episodic_length", "goal_fractions"]
    return {"update": update} | dict.fromkeys(keys) | values


@pytest.mark.parametrize(
    "evaluations",
    [
        [],
        [evaluation(10)],
        [evaluation(10, episodic_return=-3.0), evaluation(20, episodic_return=-2.0)],
        [evaluation(10, energy_score=0.2, energy_score_by_steps={"1": 0.3, "10": 0.2})],
        [
            evaluation(10, energy_score=0.2, normalized_score=40.0, normalized_score_std=5.0),
            evaluation(20, normalized_score=50.0, normalized_score_std=None),
        ],
    ],
)
def test_learning_curve(evaluations, tmp_path):
    d4rl_tasks.plot_learning_curve(evaluations, tmp_path / "curve.png", "a title")
    assert (tmp_path / "curve.png").read_bytes().startswith(PNG)
    assert [path.name for path in tmp_path.iterdir()] == ["curve.png"]


@pytest.mark.parametrize("env_id", MULTIGOAL)
def test_trajectories(env_id, tmp_path):
    d4rl_tasks.plot_trajectories(env_id, np.sign, tmp_path / "t.png", seed=0, num_episodes=20)
    assert (tmp_path / "t.png").read_bytes().startswith(PNG)
    with pytest.raises(ValueError, match="hopper-medium-v2"):
        d4rl_tasks.plot_trajectories("hopper-medium-v2", np.sign, tmp_path / "u.png", seed=0)


def test_video_of_multigoal(tmp_path):
    from PIL import Image

    d4rl_tasks.record_video("multigoal-v0", np.sign, tmp_path / "v.gif", seed=0)
    with Image.open(tmp_path / "v.gif") as gif:
        assert gif.n_frames > 2
    with pytest.raises(ValueError, match=r"v\.avi.*\.gif or \.mp4"):
        d4rl_tasks.record_video("multigoal-v0", np.sign, tmp_path / "v.avi", seed=0)


def test_mp4_without_its_encoder_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"imageio-ffmpeg.*\.gif"):
        d4rl_tasks.record_video("multigoal-v0", np.sign, tmp_path / "v.mp4", seed=0)
