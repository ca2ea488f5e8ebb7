"""offline_tasks.d4rl: physics against recordings of the real D4RL; mazes."""

from pathlib import Path

import numpy as np
import pytest

import offline_tasks
from offline_tasks import make_env

RECORDED = np.load(Path(__file__).parent / "fixtures" / "d4rl-mujoco210-trajectories.npz")
REPLAYED = sorted({key.split("/")[0] for key in RECORDED})


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

    env_id = next(e for e in offline_tasks.TASK_DIMS if e.startswith(f"antmaze-{maze}"))
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
    assert {env_id: offline_tasks.task_dims(env_id)[2] for env_id in limits} == limits
    env = make_env("antmaze-umaze-v0")
    env.reset(seed=0)
    ends = [env.step(np.zeros(8))[2:4] for _ in range(700)]
    assert ends[-1] == (False, True) and not any(map(any, ends[:-1]))
