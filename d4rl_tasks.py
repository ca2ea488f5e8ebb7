"""D4RL's tasks on Gymnasium and the official MuJoCo: environments, datasets, scores, pictures.

`gym` and `d4rl` need a MuJoCo 2.1.0 installed by hand and end at Python 3.11; this file gives
their AntMaze and locomotion tasks on current packages, with the physics corrected to MuJoCo
2.1.0's (checked against trajectories recorded in the real D4RL), and a small 2-D multi-goal task
that needs neither a download nor MuJoCo. It knows nothing of any algorithm: a policy is a function
`act` from observations (n, obs_dim) to actions (n, action_dim) in [-1, 1].

The maze maps are D4RL's (https://github.com/Farama-Foundation/D4RL, Apache 2.0).
"""

import contextlib
import copy
import difflib
import functools
import hashlib
import http.client
import importlib.util
import json
import os
import sys
import threading
import urllib.error
import urllib.request
import warnings
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np

# ---- tables --------------------------------------------------------------------------------------

LOCOMOTION = {"halfcheetah": (17, 6), "hopper": (11, 3), "walker2d": (17, 6)}  # obs, action dims
MAZES = {  # rows of cells: wall #, start R, goal G
    "umaze": "##### #R..# ###.# #G..# #####",
    "medium": "######## #R.##..# #..#...# ##...### #..#...# #.#..#.# #...#.G# ########",
    "large": "############ #R...#.....# #.##.#.#.#.# #......#...# #.####.###.# #..#.#.....# "
    "##.#.#.#.### #..#...#.G.# ############",
}
ANTMAZES = "umaze umaze-diverse medium-play medium-diverse large-play large-diverse"
# Metres in an AntMaze step of 0.1 s. Trained ants reach 0.4, random full torques 0.3; the next
# episode begins some metres away.
MAX_ANT_STEP = 1.0
CELL = 4.0  # metres; the start cell R (row 1, column 1) is centred at the origin

MULTIGOAL_REWARDS = {
    "multigoal-v0": np.array([1.0, 1.0, 1.0, 1.0]),
    "multigoal-unequal-v0": np.array([1.0, 0.5, 0.5, 0.25]),
}
GOALS = np.array([[0.7, 0.7], [-0.7, 0.7], [-0.7, -0.7], [0.7, -0.7]])
GOAL_COLORS = ["#3b6fb6", "#d1495b", "#3a9d6e", "#e09f3e", "#9a9a9a"]  # the last: none reached
GOAL_RADIUS, STEP_SIZE, START_STD, BEHAVIOR_NOISE = 0.2, 0.2, 0.1, 0.3
MULTIGOAL_STEPS = 30
MULTIGOAL_EPISODES = 8000  # of the dataset: 38,273 transitions
MULTIGOAL_DATA = "r1"  # in the file name: change it whenever the data change

# env_id: (obs_dim, action_dim, max_episode_steps)
TASK_DIMS = {
    f"{robot}-{level}-v2": (*dims, 1000)
    for robot, dims in LOCOMOTION.items()
    for level in ("medium", "medium-replay", "medium-expert")
}
TASK_DIMS |= {
    f"antmaze-{maze}-{version}": (29, 8, 700 if maze.startswith("umaze") else 1000)
    for maze in ANTMAZES.split()
    for version in ("v0", "v2")
}
TASK_DIMS |= dict.fromkeys(MULTIGOAL_REWARDS, (2, 2, MULTIGOAL_STEPS))

# The scores that count as 0 and 100, as in D4RL's d4rl/infos.py.
REFERENCE_SCORES = {
    "halfcheetah": (-280.178953, 12135.0),
    "hopper": (-20.272305, 3234.3),
    "walker2d": (1.629008, 4592.3),
    "antmaze": (0.0, 1.0),
    "pen": (96.262799, 3076.8331017826877),
    "kitchen": (0.0, 4.0),
}

DATASET_URLS = [
    "http://rail.eecs.berkeley.edu/datasets/offline_rl/",  # + folder/file
    "https://huggingface.co/datasets/imone/D4RL/resolve/main/",  # + file
]
CONNECT_TIMEOUT = 10.0  # seconds, for each of the two

# SHA-256, bytes, name: as published by TensorFlow Datasets.
PUBLISHED_FILES = """\
41324e8487a9556d8cfa4538827f8937f4d63dae3030825ebc9f3a726ed08ca0 237727262 halfcheetah_medium
48d494a4770c11f48260736dec090b78bdca8375647ed4d24bfa5b6610c7f683 59448533 halfcheetah_medium_replay
015db75dae5bbe8e94029b71fa0bafc2073365df0c94744e71031189f3f79c06 474567252 halfcheetah_medium_expert
5bdf1bc4a713c82941de44633df669b36c89850b652a25985166796d25cf71a0 152756557 hopper_medium
e121c5f7c9857a307baa9edc6a2c3b48e85fedb9ac316ecddd0f48ca7ef4e39b 75854457 hopper_medium_replay
9d51ad87f8c905be3880d84c6140bcdb7fbf39a19e046a237f238ba34fec9e26 304537315 hopper_medium_expert
cf00f43add04c17fdfc2958dd581dea0851b2e5bedbe6fda073758a8f841aeda 232254996 walker2d_medium
e75de96a4f77acf7d4e0d6fdf0d7ccb177c26c44bb4388e4fd99f543ccfa18db 86323963 walker2d_medium_replay
6b8d7f868c45bbaedf460be797fb7271b46dee6ebe45fe7a64319f2005b59a04 462197079 walker2d_medium_expert
188838316eab5882fa0e1dc8398b5e79772f64f27f0b78d6aebe838402a720c6 232533093 umaze
4aff7f77b97a8dd62e513cac8f57da7cdb458cfac7ac0cec3081b7765f2da59d 230854793 umaze-diverse
527385c14b87892e8c222c43246546d6cd461fa2a5476d0b3b105ae422b7637c 231110993 medium-play
b77764cac90c23e09905539c49ceb3949b49c5b39eb9d51788cc64b9dd0a2c0d 231095454 medium-diverse
e37afef5b80b968b30cad2682f9a93ee1b400e3b58c7a7f45e7d425d03a2b03d 230880846 large-play
dda7acbdde1a94a14aa7b06a7e5d8141e60a03ccdc4578bff34b0444425bf11d 231183929 large-diverse"""


def _dataset_table() -> dict[str, tuple[str, int | None, str | None]]:
    """env_id: (path below the first URL, bytes, SHA-256; the last two None where not published)."""
    names = {"umaze": "u-maze", "medium": "big-maze", "large": "hardest-maze"}
    table = {}
    for line in PUBLISHED_FILES.split("\n"):
        sha256, size, name = line.split()
        if name.startswith(tuple(LOCOMOTION)):
            path = f"gym_mujoco_v2/{name}-v2.hdf5"
            table[f"{name.replace('_', '-')}-v2"] = (path, int(size), sha256)
            continue
        maze, _, kind = name.partition("-")
        file = (
            f"Ant_maze_{names[maze]}_noisy_multistart_{bool(kind)}"
            f"_multigoal_{kind == 'diverse'}_sparse"
        )
        table[f"antmaze-{name}-v0"] = (f"ant_maze_new/{file}.hdf5", int(size), sha256)
        table[f"antmaze-{name}-v2"] = (f"ant_maze_v2/{file}_fixed.hdf5", None, None)
    return table


DATASETS = _dataset_table()

# ---- task names ----------------------------------------------------------------------------------


def check_env_id(env_id: str) -> None:
    """Raises a ValueError that lists near ids for one that is neither a task of this file nor
    registered in Gymnasium."""
    if env_id in TASK_DIMS:
        return
    import gymnasium

    if env_id not in gymnasium.registry:
        near = difflib.get_close_matches(env_id, [*TASK_DIMS, *gymnasium.registry], n=4, cutoff=0.5)
        raise ValueError(
            f"unknown env id {env_id!r}: near ones are {', '.join(near or sorted(TASK_DIMS))} "
            "(any other registered Gymnasium id works with --dataset-path)"
        )


def task_dims(env_id: str) -> tuple[int, int, int]:
    """(obs_dim, action_dim, max_episode_steps). Builds an environment only for ids that are not of
    this file; raises ValueError if their observations or actions are not 1-D Box spaces."""
    check_env_id(env_id)
    if env_id in TASK_DIMS:
        return TASK_DIMS[env_id]
    with contextlib.closing(make_env(env_id)) as env:
        for what, space in (("observation", env.observation_space), ("action", env.action_space)):
            if type(space).__name__ != "Box" or len(space.shape) != 1:
                raise ValueError(
                    f"env id {env_id!r}: its {what} space {space} is not a 1-D Box; "
                    "choose a task with continuous vectors"
                )
        steps = env.get_wrapper_attr("_max_episode_steps")
        return env.observation_space.shape[0], env.action_space.shape[0], steps


def check_data(env_id: str | None, path, data: dict, fix: bool = False) -> dict:
    """A dataset's transitions, with `fix` less those that `fix_timeouts` drops. Raises a ValueError
    where the columns are not the task's, or there is nothing to fix."""
    if fix and not (env_id or "").startswith("antmaze"):
        raise ValueError(f"--fix-timeouts is for AntMaze, not for {env_id or path}; leave it out")
    for key, dim in zip(("observations", "actions"), task_dims(env_id)[:2], strict=True):
        if (width := data[key].shape[1]) != dim:
            raise ValueError(f"dataset {path}: {key} have {width} columns, {env_id} has {dim}")
    return fix_timeouts(data) if fix else data


def normalized_score(env_id: str, returns) -> np.ndarray | None:
    """D4RL's 100 (return - min) / (max - min), elementwise; for multigoal 100 x return / best
    reward. None for a task without reference scores."""
    returns = np.asarray(returns, dtype=np.float64)
    if env_id in MULTIGOAL_REWARDS:
        return 100 * returns / MULTIGOAL_REWARDS[env_id].max()
    if (family := env_id.split("-")[0]) not in REFERENCE_SCORES:
        return None
    low, high = REFERENCE_SCORES[family]
    return 100 * (returns - low) / (high - low)


# ---- environments --------------------------------------------------------------------------------


def make_env(env_id: str, render_mode: str | None = None):
    """A `gymnasium.Env` with its step limit (a TimeLimit wrapper) and actions in [-1, 1]. Other
    Gymnasium ids come from `gymnasium.make`: finite action bounds are rescaled to [-1, 1], and a
    task without a step limit gets D4RL's usual 1000."""
    check_env_id(env_id)
    if render_mode is not None and sys.platform == "linux":
        if "MUJOCO_GL" not in os.environ and "DISPLAY" not in os.environ:
            os.environ["MUJOCO_GL"] = "egl"  # headless; MuJoCo's own default wants a display
    import gymnasium
    from gymnasium.wrappers import RescaleAction, TimeLimit

    if env_id in MULTIGOAL_REWARDS:
        env = _multigoal_env_class()(env_id, render_mode)
    elif env_id in TASK_DIMS:
        family, maze, *_, version = env_id.split("-")
        of_maze = {"maze": maze, "version": version} if family == "antmaze" else {}
        env = _mujoco_env_classes()[family](render_mode=render_mode, **of_maze)
    else:
        try:
            env = gymnasium.make(env_id, render_mode=render_mode, disable_env_checker=True)
        except (gymnasium.error.Error, ImportError) as error:
            raise ValueError(f"env id {env_id!r} cannot be built: {error}") from error
        space = env.action_space
        if type(space).__name__ == "Box" and space.is_bounded():
            env = RescaleAction(env, np.float32(-1), np.float32(1))
        if env.spec.max_episode_steps is None:
            env = TimeLimit(env, 1000)
        return env
    return TimeLimit(env, TASK_DIMS[env_id][2])


@functools.cache
def _mujoco_210_model(xml_file: str, maze: str | None):
    """The compiled model of one of Gymnasium's XML files, with MuJoCo 2.1.0's physics."""
    import gymnasium.envs.mujoco
    import mujoco

    assets = Path(gymnasium.envs.mujoco.__file__).parent / "assets"
    root = ElementTree.parse(assets / xml_file).getroot()
    if maze is not None:
        _add_maze(root, maze)
    # MuJoCo is about to drop this attribute of HalfCheetah's XML, so it is applied below.
    total_mass = root.find("compiler").attrib.pop("settotalmass", None)
    model = mujoco.MjModel.from_xml_string(ElementTree.tostring(root, encoding="unicode"))

    # MuJoCo 2.1.0 weighed a capsule as a cylinder lengthened by half a radius at either end; it
    # has been exact since 2.1.2, which makes bodies 4-8 % lighter. A twin model with such
    # cylinders, used for nothing else, gives the old masses and inertias.
    for geom in root.iter("geom"):
        if geom.get("type") == "capsule":
            geom.set("type", "cylinder")
            size = np.array(geom.get("size").split(), dtype=float)
            if "fromto" in geom.attrib:
                ends = np.array(geom.get("fromto").split(), dtype=float).reshape(2, 3)
                axis = (ends[1] - ends[0]) / np.linalg.norm(ends[1] - ends[0])
                ends += np.outer([-0.5, 0.5], size[0] * axis)
                geom.set("fromto", " ".join(map(repr, ends.ravel().tolist())))
            else:
                geom.set("size", f"{float(size[0])!r} {float(size[1] + size[0] / 2)!r}")
    twin = mujoco.MjModel.from_xml_string(ElementTree.tostring(root, encoding="unicode"))
    if total_mass is not None:
        mujoco.mj_setTotalmass(twin, float(total_mass))
    for name in ("body_mass", "body_inertia", "body_ipos", "body_iquat"):
        getattr(model, name)[:] = getattr(twin, name)

    # Since 3.5.0 the margins of two touching geoms are added; before, the larger one counted.
    if tuple(int(part) for part in mujoco.__version__.split(".")[:2]) >= (3, 5):
        model.geom_margin[:] *= 0.5
    mujoco.mj_setConst(model, mujoco.MjData(model))  # what MuJoCo derives from masses
    return model


def _add_maze(root, maze: str) -> None:
    """Turns Gymnasium's ant.xml into D4RL's AntMaze: slower clock, weaker motors, walls, goal."""
    root.find("option").set("timestep", "0.02")
    geom = root.find("default/geom")
    geom.set("solref", ".02 1")
    geom.set("solimp", ".8 .8 .01")
    for motor in root.iter("motor"):
        motor.set("gear", "1")
        motor.set("ctrlrange", "-30 30")
    world = root.find("worldbody")
    floor = world.find("geom[@name='floor']")
    del floor.attrib["material"]  # plain colours: on its squares one does not see the ant
    floor.set("rgba", ".3 .35 .4 1")
    for i, row in enumerate(MAZES[maze].split()):
        for j, cell in enumerate(row):
            if cell == "#":
                attributes = {"type": "box", "size": f"{CELL / 2} {CELL / 2} 1"}
                attributes |= {"pos": f"{CELL * (j - 1)} {CELL * (i - 1)} 1"}
                attributes |= {"contype": "1", "conaffinity": "1", "rgba": ".5 .45 .35 1"}
                ElementTree.SubElement(world, "geom", attributes)
    # Only drawn: the physics has no sites. At the world's origin MuJoCo would never move it.
    goal = {"type": "cylinder", "size": "0.5 0.02", "pos": "1 1 0", "rgba": ".1 .6 .2 1"}
    ElementTree.SubElement(world, "site", goal)


@functools.cache
def _mujoco_env_classes() -> dict:
    """The environment classes; made here because importing this file must not import MuJoCo."""
    import mujoco
    from gymnasium.envs.mujoco import MujocoEnv
    from gymnasium.envs.mujoco.half_cheetah_v4 import HalfCheetahEnv
    from gymnasium.envs.mujoco.hopper_v4 import HopperEnv
    from gymnasium.envs.mujoco.walker2d_v4 import Walker2dEnv
    from gymnasium.spaces import Box

    class D4RLPhysics:
        """MuJoCo 2.1.0's physics and D4RL's action mapping for a MujocoEnv."""

        maze = None

        def _initialize_simulation(self):
            # A copy, because people change `env.unwrapped.model`.
            model = copy.copy(_mujoco_210_model(Path(self.fullpath).name, self.maze))
            view = model.vis.global_
            view.offwidth = max(view.offwidth, self.width)
            view.offheight = max(view.offheight, self.height)
            return model, mujoco.MjData(model)

        def _set_action_space(self):
            self._low, self._high = self.model.actuator_ctrlrange.T.astype(np.float32)
            self.action_space = Box(-1.0, 1.0, self._low.shape, np.float32)
            return self.action_space

        def set_state(self, qpos, qvel):
            self.data.qpos[:] = qpos
            self.data.qvel[:] = qvel
            mujoco.mj_normalizeQuat(self.model, self.data.qpos)  # mj_forward's work before 3.2.0
            mujoco.mj_forward(self.model, self.data)

        def step(self, action):
            # In float32, as D4RL does: float64 is 0.4 off after 50 HalfCheetah steps. Clipping
            # here also means that the control cost is that of the clipped action.
            action = np.asarray(action, dtype=np.float32)
            ctrl = self._low + (action + 1) * 0.5 * (self._high - self._low)
            return super().step(np.clip(ctrl, self._low, self._high))

    class Torques(MujocoEnv):
        """The part of AntMaze that sees actions as torques."""

        def step(self, ctrl):
            self.do_simulation(ctrl, self.frame_skip)
            reached = bool(np.linalg.norm(self.data.qpos[:2] - self.target_goal) <= 0.5)
            if self.render_mode == "human":
                self.render()
            return self.state_vector(), float(reached), reached, False, {"is_success": reached}

    class AntMaze(D4RLPhysics, Torques):
        """An ant in a maze. Observation: 15 positions and 14 velocities, not the goal. Reward 1
        within 0.5 m of `target_goal`, which also ends the episode; falling over does not."""

        metadata = HalfCheetahEnv.metadata | {"render_fps": 10}

        def __init__(self, maze, version, render_mode=None):
            self.maze, self.new_goal_each_reset = maze, version == "v2"
            self.rows = MAZES[maze].split()
            self.target_goal = None  # v0: drawn at the first reset (so from its seed), then kept
            height, width = len(self.rows), len(self.rows[0])
            centre = np.array([width - 3, height - 3, 0]) * CELL / 2
            camera = {"lookat": centre, "elevation": -90.0, "azimuth": 90.0}
            super().__init__(
                "ant.xml",
                frame_skip=5,
                observation_space=Box(-np.inf, np.inf, (29,), np.float64),
                render_mode=render_mode,
                camera_id=-1,  # looks at the whole maze
                default_camera_config=camera | {"distance": 1.25 * CELL * max(width, height)},
            )

        def draw_goal(self):
            """The goal's cell plus uniform noise in [0, 1.5] m, never below 0: D4RL's."""
            i = next(i for i, row in enumerate(self.rows) if "G" in row)
            corner = CELL * np.array([self.rows[i].index("G") - 1, i - 1])
            noise = self.np_random.uniform(0, 1, 2) + self.np_random.uniform(0, 0.5, 2)
            return np.maximum(0, corner + noise)

        def reset_model(self):
            qpos = self.init_qpos + self.np_random.uniform(-0.1, 0.1, self.model.nq)
            qvel = 0.1 * self.np_random.standard_normal(self.model.nv)
            if self.target_goal is None or self.new_goal_each_reset:
                self.target_goal = self.draw_goal()
            self.model.site_pos[0] = [*self.target_goal, 0.02]
            self.set_state(qpos, qvel)
            return self.state_vector()

    # Gymnasium's -v4 have D4RL's observations, rewards, terminations and reset noise; -v5 do not.
    robots = {"halfcheetah": HalfCheetahEnv, "hopper": HopperEnv, "walker2d": Walker2dEnv}
    classes = {k: type(v.__name__, (D4RLPhysics, v), {}) for k, v in robots.items()}
    return classes | {"antmaze": AntMaze}


# ---- multi-goal task (paper, Appendix D.5) -------------------------------------------------------


def _multigoal_step(position, action):
    """Next positions (n, 2) and the goal (n,) that each is in, -1 for none."""
    position = np.clip(position + STEP_SIZE * np.clip(action, -1, 1), -1, 1)
    offset = position[:, None] - GOALS
    inside = offset[..., 0] ** 2 + offset[..., 1] ** 2 <= GOAL_RADIUS**2
    return position, np.where(inside.any(1), inside.argmax(1), -1)


def _multigoal_starts(seeds):
    """Start positions (n, 2): those of the environment reset with these seeds."""
    return np.stack([START_STD * np.random.default_rng(s).standard_normal(2) for s in seeds])


def _multigoal_rollout(start, act):
    """Positions (MULTIGOAL_STEPS + 1, n, 2), NaN after the end; actions likewise; the goal reached
    (n,) or -1; lengths (n,). `act(position (m, 2), index (m,))` sees the running episodes."""
    positions = np.full((MULTIGOAL_STEPS + 1, *start.shape), np.nan)
    actions = np.full_like(positions, np.nan)
    goals, lengths = np.full(len(start), -1), np.zeros(len(start), dtype=int)
    positions[0] = start
    for t in range(MULTIGOAL_STEPS):
        running = np.flatnonzero(goals < 0)
        if not running.size:
            break
        action = actions[t, running] = act(positions[t, running], running)
        positions[t + 1, running], goals[running] = _multigoal_step(positions[t, running], action)
        lengths[running] += 1
    return positions, actions, goals, lengths


def _multigoal_data(env_id: str) -> dict[str, np.ndarray]:
    """The dataset, in D4RL's keys: every goal is headed for by a quarter of the episodes, at full
    speed and with action noise. Both tasks have the same data but for the rewards."""
    rng = np.random.default_rng(0)
    headed_for = rng.permutation(MULTIGOAL_EPISODES) % len(GOALS)

    def behavior(position, index):
        direction = GOALS[headed_for[index]] - position
        direction /= np.sqrt((direction**2).sum(1, keepdims=True))
        noise = BEHAVIOR_NOISE * rng.standard_normal(position.shape)
        # rounded as the file stores it, so that the data obey the dynamics exactly
        return np.clip(direction + noise, -1, 1).astype(np.float32)

    start = START_STD * rng.standard_normal((MULTIGOAL_EPISODES, 2))
    positions, actions, goals, lengths = _multigoal_rollout(start, behavior)
    episode = np.repeat(np.arange(MULTIGOAL_EPISODES), lengths)
    step = np.arange(len(episode)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    last = step + 1 == lengths[episode]
    terminals = last & (goals[episode] >= 0)
    return {
        "observations": positions[step, episode].astype(np.float32),
        "actions": actions[step, episode].astype(np.float32),
        "rewards": (terminals * MULTIGOAL_REWARDS[env_id][goals[episode]]).astype(np.float32),
        "terminals": terminals,
        "timeouts": last & ~terminals,
    }


@functools.cache
def _multigoal_env_class():
    import gymnasium

    class Multigoal(gymnasium.Env):
        """A point in [-1, 1]^2 driven by its velocity; reward and end on reaching a goal."""

        metadata = gymnasium.Env.metadata | {"render_modes": ["rgb_array"], "render_fps": 5}

        def __init__(self, env_id, render_mode):
            self.env_id, self.render_mode = env_id, render_mode
            self.observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
            self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.path = [START_STD * self.np_random.standard_normal(2)]
            return self.path[0].astype(np.float32), {}

        def step(self, action):
            position, goal = _multigoal_step(self.path[-1][None], np.asarray(action)[None])
            self.path.append(position[0])
            reached = bool(goal[0] >= 0)
            reward = float(reached * MULTIGOAL_REWARDS[self.env_id][goal[0]])
            info = {"is_success": reached, "goal": int(goal[0])}
            return position[0].astype(np.float32), reward, reached, False, info

        def render(self):
            from matplotlib.backends.backend_agg import FigureCanvasAgg
            from matplotlib.figure import Figure

            canvas = FigureCanvasAgg(Figure(figsize=(4.8, 4.8), dpi=100, layout="constrained"))
            axis = canvas.figure.subplots()
            _draw_goals(axis, MULTIGOAL_REWARDS[self.env_id])
            axis.plot(*np.array(self.path).T, color="black", marker="o", markevery=[-1])
            canvas.draw()
            return np.asarray(canvas.buffer_rgba())[..., :3].copy()

    return Multigoal


# ---- evaluation ----------------------------------------------------------------------------------


def episode_seeds(seed: int, num_episodes: int) -> list[int]:
    """The seeds that `evaluate` resets its episodes with."""
    return np.random.SeedSequence(seed).generate_state(num_episodes).tolist()


def evaluate(env_id: str, act, num_episodes: int, seed: int) -> dict:
    """Means over `num_episodes` parallel episodes of `act`, which maps the float32 observations
    (n, obs_dim) of those still running to actions (n, action_dim). All randomness but the policy's
    own is from `seed`. Each AntMaze episode draws its own goal; the reference code draws one per
    evaluation. What does not apply is None; `normalized_score_std` is over the episodes."""
    if num_episodes < 1:
        raise ValueError(f"num_episodes is {num_episodes}: at least 1 is needed")
    _, action_dim, _ = task_dims(env_id)

    def policy(obs):
        actions = np.asarray(act(np.asarray(obs, dtype=np.float32)))
        if actions.shape != (len(obs), action_dim) or not np.isfinite(actions).all():
            raise ValueError(
                f"the policy gave actions of shape {actions.shape} for {env_id!r}: "
                f"{(len(obs), action_dim)} and finite numbers are needed"
            )
        return actions

    seeds, goal_fractions = episode_seeds(seed, num_episodes), None
    if env_id in MULTIGOAL_REWARDS:
        start = _multigoal_starts(seeds)
        _, _, goals, lengths = _multigoal_rollout(start, lambda position, _: policy(position))
        returns = np.where(goals < 0, 0.0, MULTIGOAL_REWARDS[env_id][goals])
        goal_fractions = [float((goals == k).mean()) for k in range(len(GOALS))]
    else:
        returns, lengths = _rollout(env_id, policy, seeds)
    scores = normalized_score(env_id, returns)
    return {
        "normalized_score": None if scores is None else float(scores.mean()),
        "normalized_score_std": None if scores is None else float(scores.std()),
        "episodic_return": float(returns.mean()),
        "episodic_length": float(lengths.mean()),
        "goal_fractions": goal_fractions,
    }


def _rollout(env_id, policy, seeds) -> tuple[np.ndarray, np.ndarray]:
    """Returns and lengths (n,) of one episode per seed, all in parallel."""
    returns, lengths = np.zeros(len(seeds)), np.zeros(len(seeds), dtype=int)
    with contextlib.ExitStack() as stack:
        envs = [stack.enter_context(contextlib.closing(make_env(env_id))) for _ in seeds]
        obs = {i: env.reset(seed=s)[0] for i, (env, s) in enumerate(zip(envs, seeds, strict=True))}
        while obs:
            running = list(obs)
            actions = policy(list(obs.values()))
            for i, action in zip(running, actions, strict=True):
                obs[i], reward, terminated, truncated, _ = envs[i].step(action)
                returns[i] += reward
                lengths[i] += 1
                if terminated or truncated:
                    del obs[i]
    return returns, lengths


# ---- datasets ------------------------------------------------------------------------------------


def dataset_file(env_id: str) -> Path:
    """The task's data file in $D4RL_DATASET_DIR (default ~/.d4rl/datasets), under D4RL's name:
    downloaded if absent, verified; the multi-goal data are made from a seed. Raises
    ValueError without a network, on a wrong checksum (the file is kept as .bad), and for ids that
    have no dataset."""
    check_env_id(env_id)
    folder = Path(os.environ.get("D4RL_DATASET_DIR") or "~/.d4rl/datasets").expanduser()
    if env_id in MULTIGOAL_REWARDS:
        path = folder / f"{env_id}-{MULTIGOAL_DATA}.npz"
    elif env_id in DATASETS:
        path = folder / DATASETS[env_id][0].split("/")[-1]
    else:
        raise ValueError(
            f"env id {env_id!r} has no D4RL dataset: pass one with --dataset-path FILE"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if env_id in DATASETS:
            if not path.exists():
                _download(env_id, path)
            _verify(env_id, path)
        elif not path.exists():
            with _replacing(path) as temporary:
                np.savez(temporary, **_multigoal_data(env_id))
    except OSError as error:
        raise ValueError(
            f"dataset folder {folder} cannot be used ({error}): set D4RL_DATASET_DIR to a writable "
            "folder, or pass --dataset-path FILE"
        ) from error
    return path


@contextlib.contextmanager
def _replacing(path):
    """A temporary name beside `path`, renamed to it at the end: readers see all or nothing."""
    path = Path(path)
    temporary = path.with_name(f".{os.getpid()}-{threading.get_ident()}-{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _verify(env_id: str, path: Path) -> None:
    """Compares size and SHA-256 with the published ones (about a second), or where none is
    published the shapes, with a warning. A wrong file is renamed to .bad."""
    _, size, sha256 = DATASETS[env_id]
    wrong = None
    if sha256 is not None:
        if path.stat().st_size != size:
            wrong = f"{path.stat().st_size} bytes instead of {size}"
        elif (found := _sha256(path)) != sha256:
            wrong = f"SHA-256 {found} instead of {sha256}"
    else:
        import h5py

        warnings.warn(
            f"{path.name}: no checksum is published for {env_id}, only its shapes are checked",
            stacklevel=3,
        )
        try:
            with h5py.File(path) as file:
                shapes = (*file["observations"].shape[1:], *file["actions"].shape[1:])
            if shapes != TASK_DIMS[env_id][:2]:
                wrong = f"rows of {shapes} observations and actions, not {TASK_DIMS[env_id][:2]}"
        except (OSError, KeyError) as error:
            wrong = f"not D4RL's layout ({error})"
    if wrong is None:
        return
    bad = path.with_name(path.name + ".bad")
    with contextlib.suppress(FileNotFoundError):  # another process was faster
        os.replace(path, bad)
    raise ValueError(
        f"dataset file {path} is not D4RL's: {wrong}; it was kept as {bad.name}. "
        "Run again to download it afresh, or pass --dataset-path FILE"
    )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _download(env_id: str, path: Path) -> None:
    """Fetches the file from the first URL that serves it; one process at a time."""
    import filelock

    remote, size, _ = DATASETS[env_id]
    urls = [DATASET_URLS[0] + remote] + [base + path.name for base in DATASET_URLS[1:]]
    lock = filelock.FileLock(path.with_name(path.name + ".lock"))  # freed if its process dies
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        print(f"waiting for another process that downloads {path.name}", file=sys.stderr)
        lock.acquire()
    try:
        part, failures = path.with_name(path.name + ".part"), []
        for url in urls:
            if path.exists():  # the other process's work
                return
            try:
                _fetch(url, part, size)
                os.replace(part, path)
                return
            except (OSError, http.client.HTTPException) as error:
                failures.append(f"{url} ({error})")
                if getattr(error, "code", None) == 416:  # nothing can follow what is there
                    part.unlink(missing_ok=True)
    finally:
        lock.release()
    raise ValueError(
        f"dataset of {env_id} could not be downloaded, tried {' and '.join(failures)}: check the "
        f"network and run again, put the file at {path}, or pass --dataset-path FILE"
    )


def _fetch(url: str, part: Path, size: int | None) -> None:
    """Downloads to `part`, continuing what is already there. Raises OSError if not complete."""
    import tqdm

    start = part.stat().st_size if part.exists() else 0
    if start == size:  # the last process stopped just before renaming it
        return
    with _open(url, start) as response:
        if response.status != 206:  # the server knows no ranges: all of it follows
            start = 0
        length = response.headers["Content-Length"]
        total = None if length is None else start + int(length)
        if size is not None and total is not None and total != size:
            raise OSError(f"offers {total} bytes instead of {size}")
        bar = tqdm.tqdm(desc=part.stem, total=total, initial=start, unit="B", unit_scale=True)
        with part.open("ab" if start else "wb") as file, bar:
            while chunk := response.read(1 << 18):
                file.write(chunk)
                bar.update(len(chunk))
    if total is not None and part.stat().st_size != total:
        raise OSError(f"connection lost after {part.stat().st_size} of {total} bytes")


def _open(url: str, start: int):
    """`urlopen` from byte `start` that answers within about CONNECT_TIMEOUT. Its own timeout is for
    each of a host's addresses and leaves out the name look-up, hence the thread."""
    headers = {"User-Agent": "d4rl_tasks"} | ({"Range": f"bytes={start}-"} if start else {})
    request = urllib.request.Request(url, headers=headers)
    answers = []

    def ask():
        try:
            answers.append(urllib.request.urlopen(request, timeout=CONNECT_TIMEOUT))
        except Exception as error:
            answers.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(1.1 * CONNECT_TIMEOUT)
    if not answers:
        raise TimeoutError(f"no answer within {CONNECT_TIMEOUT:g} s")
    if isinstance(answers[0], Exception):
        raise answers[0]
    return answers[0]


def fix_timeouts(data: dict) -> dict:
    """Drops the transitions of antmaze-v0 whose position (the first two observations) jumps further
    than an ant can in a step: there a new episode begins without a timeout (D4RL issues 77, 199).
    `data` holds `observations, next_observations, terminals` (N, ...) and more of length N."""
    jump = np.linalg.norm(data["next_observations"][:, :2] - data["observations"][:, :2], axis=1)
    # After a terminal transition the next observation is not used, so a jump there does no harm.
    keep = (jump <= MAX_ANT_STEP) | (data["terminals"].reshape(-1) > 0)
    return {key: value[keep] for key, value in data.items()}


# ---- pictures ------------------------------------------------------------------------------------
# matplotlib's Figure alone, without pyplot: no global state, no display, any thread.


def plot_learning_curve(evaluations: list[dict], path, title: str) -> None:
    """PNG, over the updates, of the normalised score with its standard deviation (or of the return,
    where there is no score) and of the held-out energy score by number of steps K. Whatever is
    missing or None in `evaluations` is left out."""
    from matplotlib.figure import Figure

    def curve(value):  # of the evaluations that have it
        points = [(e["update"], value(e)) for e in evaluations if value(e) is not None]
        return np.array(points, dtype=float).reshape(-1, 2).T

    panels = {}  # y label: {label: points (2, n)}
    score, returns = (
        curve(lambda e, k=k: e.get(k)) for k in ("normalized_score", "episodic_return")
    )
    if score.size or returns.size:
        panels["normalized score" if score.size else "return"] = {
            "": score if score.size else returns
        }
    steps = {k for e in evaluations for k in e.get("energy_score_by_steps") or {}}
    energy = {
        f"K = {k}": curve(lambda e, k=k: (e.get("energy_score_by_steps") or {}).get(k))
        for k in sorted(steps, key=int)
    } or {"": curve(lambda e: e.get("energy_score"))}
    if any(points.size for points in energy.values()) or not panels:
        panels["held-out energy score (lower is better)"] = energy

    figure = Figure(figsize=(5 * len(panels), 3.6), dpi=120, layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (y_label, curves) in zip(axes, panels.items(), strict=True):
        for label, points in curves.items():
            axis.plot(*points, marker=".", label=label)
        if "" not in curves:
            axis.legend(frameon=False)
        axis.set(xlabel="updates", ylabel=y_label)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    std = curve(lambda e: e.get("normalized_score_std"))[1]
    if score.size and len(std) == len(score[1]):
        axes[0].fill_between(score[0], score[1] - std, score[1] + std, alpha=0.15, lw=0)
    figure.suptitle(title)
    with _replacing(path) as temporary:
        figure.savefig(temporary)


def plot_trajectories(env_id: str, act, path, seed: int, num_episodes: int = 200) -> None:
    """PNG of multi-goal rollouts of `act`, coloured by the goal reached."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5), dpi=120, layout="constrained")
    draw_trajectories(figure.subplots(), env_id, act, seed, num_episodes)
    with _replacing(path) as temporary:
        figure.savefig(temporary)


def draw_trajectories(axis, env_id: str, act, seed: int, num_episodes: int = 200) -> None:
    """What `plot_trajectories` shows, on a matplotlib axis."""
    if env_id not in MULTIGOAL_REWARDS:
        raise ValueError(f"trajectories are drawn for {', '.join(MULTIGOAL_REWARDS)}, not {env_id}")
    positions, _, goals, _ = _multigoal_rollout(
        _multigoal_starts(episode_seeds(seed, num_episodes)),
        lambda position, _: act(position.astype(np.float32)),
    )
    for path, goal in zip(positions.swapaxes(0, 1), goals, strict=True):
        axis.plot(*path.T, color=GOAL_COLORS[goal], lw=0.8, alpha=0.5)
    axis.plot(*positions[0].T, color="black", ls="", marker=".", markersize=3, zorder=3)
    fractions = [(goals == k).mean() for k in range(len(GOALS))]
    _draw_goals(axis, [f"{fraction:.0%}" for fraction in fractions])


def _draw_goals(axis, labels) -> None:
    from matplotlib.patches import Circle

    for goal, color, label in zip(GOALS, GOAL_COLORS, labels, strict=False):
        axis.add_patch(Circle(goal, GOAL_RADIUS, facecolor=color, alpha=0.25, lw=0))
        axis.add_patch(Circle(goal, GOAL_RADIUS, fill=False, edgecolor=color, lw=1.5))
        box = {"boxstyle": "round", "facecolor": "white", "alpha": 0.7, "lw": 0}
        axis.annotate(label, goal, ha="center", va="center", weight="bold", bbox=box, zorder=4)
    axis.set(xlim=(-1.02, 1.02), ylim=(-1.02, 1.02), aspect="equal", xticks=[], yticks=[])


def record_video(env_id: str, act, path, seed: int, fps: float | None = None) -> None:
    """One episode of `act` in real time, to .gif or .mp4. `fps`: frames per second of the file, at
    most the task's own steps per second; None: at most 25. Raises ValueError for another suffix or
    if .mp4 cannot be written here."""
    path, obs_dim = Path(path), task_dims(env_id)[0]
    if path.suffix not in (".gif", ".mp4"):
        raise ValueError(f"video {path}: its suffix must be .gif or .mp4")
    if path.suffix == ".mp4" and importlib.util.find_spec("imageio_ffmpeg") is None:
        raise ValueError(f"video {path}: .mp4 needs `pip install imageio-ffmpeg`, or choose .gif")
    frames = []

    def render():
        try:
            return env.render()
        except Exception as error:  # each graphics library has its own kinds
            raise ValueError(f"video {path}: {env_id} cannot be drawn here ({error})") from error

    with contextlib.closing(make_env(env_id, render_mode="rgb_array")) as env:
        steps_per_second = env.metadata.get("render_fps", 25)
        every = max(1, round(steps_per_second / (fps or min(25, steps_per_second))))
        obs, _ = env.reset(seed=episode_seeds(seed, 1)[0])
        over, step = False, 0
        while not over:
            if step % every == 0:
                frames.append(render())
            action = act(np.asarray(obs, dtype=np.float32).reshape(1, obs_dim))[0]
            obs, _, terminated, truncated, _ = env.step(action)
            over, step = terminated or truncated, step + 1
        frames.append(render())
    with _replacing(path) as temporary:
        if path.suffix == ".gif":
            from PIL import Image

            palette = Image.fromarray(frames[0]).quantize(128)  # one for all: a far smaller file
            first, *others = [
                Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE)
                for frame in frames
            ]
            duration = 1000 * every / steps_per_second  # milliseconds
            first.save(temporary, save_all=True, append_images=others, duration=duration, loop=0)
        else:
            import imageio

            imageio.mimwrite(temporary, frames, fps=steps_per_second / every)


def plot_run(run_dir, env_id: str | None, evaluations: list[dict], act, seed: int) -> None:
    """The pictures of a run: learning_curve.png and, for multigoal, trajectories.png."""
    run_dir = Path(run_dir)
    plot_learning_curve(evaluations, run_dir / "learning_curve.png", run_dir.name)
    if env_id in MULTIGOAL_REWARDS:
        plot_trajectories(env_id, act, run_dir / "trajectories.png", seed)


def print_evaluation(act) -> None:
    """What --eval-only does: `evaluate` a policy as its `act.args` say, print one line of JSON, and
    perhaps film an episode. Raises ValueError for a policy without a task."""
    args = act.args
    if args.env_id is None:
        raise ValueError("the run had no task; name one with --env-id")
    scores = evaluate(args.env_id, act, args.num_eval_episodes, args.seed + 100)
    given = {
        k: getattr(args, k) for k in ("env_id", "num_steps", "num_candidates") if k in vars(args)
    }
    print(json.dumps(given | scores))
    if args.capture_video is not None:
        record_video(args.env_id, act, args.capture_video, args.seed + 100)
