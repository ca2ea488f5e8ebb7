"""D4RL's locomotion and AntMaze environments on Gymnasium and the official MuJoCo.

`gym` and `d4rl` need a MuJoCo 2.1.0 installed by hand and end at Python 3.11; these run on current
packages, with the physics corrected to MuJoCo 2.1.0's (checked against trajectories recorded in the
real D4RL). This file imports MuJoCo: `registry.make_env` imports it when it is needed.
"""

import copy
import functools
from pathlib import Path
from xml.etree import ElementTree

import gymnasium.envs.mujoco
import mujoco
import numpy as np
from gymnasium.envs.mujoco import MujocoEnv
from gymnasium.envs.mujoco.half_cheetah_v4 import HalfCheetahEnv
from gymnasium.envs.mujoco.hopper_v4 import HopperEnv
from gymnasium.envs.mujoco.walker2d_v4 import Walker2dEnv
from gymnasium.spaces import Box

from offline_tasks.mazes import find_cell, maze_rows

CELL = 4.0  # metres; the start cell R (row 1, column 1) is centred at the origin
ANT_GOAL_RADIUS = 0.5  # metres


def make_env(env_id: str, render_mode: str | None = None):
    """The environment of a D4RL id, without a step limit."""
    family, maze, *_, version = env_id.split("-")
    if family == "antmaze":
        return AntMaze(maze, version, render_mode=render_mode)
    return ROBOTS[family](render_mode=render_mode)


# ---- MuJoCo 2.1.0's physics ----------------------------------------------------------------------


@functools.cache
def mujoco_210_model(xml_file: str, maze: str | None):
    """The compiled model of one of Gymnasium's XML files, with MuJoCo 2.1.0's physics."""
    assets = Path(gymnasium.envs.mujoco.__file__).parent / "assets"
    root = ElementTree.parse(assets / xml_file).getroot()
    if maze is not None:
        _add_maze(root, maze)
    # MuJoCo is about to drop this attribute of HalfCheetah's XML, so it is applied below.
    total_mass = root.find("compiler").attrib.pop("settotalmass", None)
    model = _compiled(root)

    # MuJoCo 2.1.0 weighed a capsule as a cylinder lengthened by half a radius at either end; it
    # has been exact since 2.1.2, which makes bodies 4-8 % lighter. A twin model with such
    # cylinders, used for nothing else, gives the old masses and inertias.
    for geom in root.iter("geom"):
        if geom.get("type") == "capsule":
            _make_cylinder(geom)
    twin = _compiled(root)
    if total_mass is not None:
        mujoco.mj_setTotalmass(twin, float(total_mass))
    for name in ("body_mass", "body_inertia", "body_ipos", "body_iquat"):
        getattr(model, name)[:] = getattr(twin, name)

    # Since 3.5.0 the margins of two touching geoms are added; before, the larger one counted.
    if tuple(int(part) for part in mujoco.__version__.split(".")[:2]) >= (3, 5):
        model.geom_margin[:] *= 0.5
    mujoco.mj_setConst(model, mujoco.MjData(model))  # what MuJoCo derives from masses
    return model


def _compiled(root):
    return mujoco.MjModel.from_xml_string(ElementTree.tostring(root, encoding="unicode"))


def _make_cylinder(capsule) -> None:
    """Turns a capsule of the XML into a cylinder half a radius longer at either end."""
    capsule.set("type", "cylinder")
    size = np.array(capsule.get("size").split(), dtype=float)
    if "fromto" in capsule.attrib:
        ends = np.array(capsule.get("fromto").split(), dtype=float).reshape(2, 3)
        axis = (ends[1] - ends[0]) / np.linalg.norm(ends[1] - ends[0])
        ends += np.outer([-0.5, 0.5], size[0] * axis)
        capsule.set("fromto", " ".join(map(repr, ends.ravel().tolist())))
    else:
        capsule.set("size", f"{float(size[0])!r} {float(size[1] + size[0] / 2)!r}")


class D4RLPhysics:
    """MuJoCo 2.1.0's physics and D4RL's action mapping for a MujocoEnv."""

    maze = None

    def _initialize_simulation(self):
        # A copy, because people change `env.unwrapped.model`.
        model = copy.copy(mujoco_210_model(Path(self.fullpath).name, self.maze))
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


# ---- locomotion ----------------------------------------------------------------------------------
# Gymnasium's -v4 have D4RL's observations, rewards, terminations and reset noise; -v5 do not.


class HalfCheetah(D4RLPhysics, HalfCheetahEnv):
    """D4RL's HalfCheetah."""


class Hopper(D4RLPhysics, HopperEnv):
    """D4RL's Hopper."""


class Walker2d(D4RLPhysics, Walker2dEnv):
    """D4RL's Walker2d."""


ROBOTS = {"halfcheetah": HalfCheetah, "hopper": Hopper, "walker2d": Walker2d}


# ---- AntMaze -------------------------------------------------------------------------------------


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
    for i, row in enumerate(maze_rows(maze)):
        for j, cell in enumerate(row):
            if cell == "#":
                wall = {
                    "type": "box",
                    "size": f"{CELL / 2} {CELL / 2} 1",
                    "pos": f"{CELL * (j - 1)} {CELL * (i - 1)} 1",
                    "contype": "1",
                    "conaffinity": "1",
                    "rgba": ".5 .45 .35 1",
                }
                ElementTree.SubElement(world, "geom", wall)
    # Only drawn: the physics has no sites. At the world's origin MuJoCo would never move it.
    goal = {"type": "cylinder", "size": "0.5 0.02", "pos": "1 1 0", "rgba": ".1 .6 .2 1"}
    ElementTree.SubElement(world, "site", goal)


class Torques(MujocoEnv):
    """The part of AntMaze that sees actions as torques."""

    def step(self, ctrl):
        self.do_simulation(ctrl, self.frame_skip)
        distance = np.linalg.norm(self.data.qpos[:2] - self.target_goal)
        reached = bool(distance <= ANT_GOAL_RADIUS)
        if self.render_mode == "human":
            self.render()
        return self.state_vector(), float(reached), reached, False, {"is_success": reached}


class AntMaze(D4RLPhysics, Torques):
    """An ant in a maze. Observation: 15 positions and 14 velocities, not the goal. Reward 1
    within 0.5 m of `target_goal`, which also ends the episode; falling over does not."""

    metadata = HalfCheetahEnv.metadata | {"render_fps": 10}

    def __init__(self, maze: str, version: str, render_mode: str | None = None):
        self.maze = maze
        self.new_goal_each_reset = version == "v2"
        self.rows = maze_rows(maze)
        self.target_goal = None  # v0: drawn at the first reset (so from its seed), then kept
        height = len(self.rows)
        width = len(self.rows[0])
        camera = {
            "lookat": np.array([width - 3, height - 3, 0]) * CELL / 2,
            "elevation": -90.0,
            "azimuth": 90.0,
            "distance": 1.25 * CELL * max(width, height),
        }
        super().__init__(
            "ant.xml",
            frame_skip=5,
            observation_space=Box(-np.inf, np.inf, (29,), np.float64),
            render_mode=render_mode,
            camera_id=-1,  # looks at the whole maze
            default_camera_config=camera,
        )

    def draw_goal(self) -> np.ndarray:
        """The goal's cell plus uniform noise in [0, 1.5] m, never below 0: D4RL's."""
        row, column = find_cell(self.rows, "G")
        corner = CELL * np.array([column - 1, row - 1])
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
