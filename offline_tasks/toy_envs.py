"""The toys as Gymnasium environments; importing this file registers them, so that
`gymnasium.make("offline_tasks.toy_envs:multigoal-v0")` finds them."""

import gymnasium
import numpy as np

from offline_tasks import plots
from offline_tasks.toys import TOYS


class ToyEnv(gymnasium.Env):
    """One episode at a time of a toy; `info` tells whether a goal was reached, and which."""

    def __init__(self, env_id: str, render_mode: str | None = None):
        self.env_id = env_id
        self.toy = TOYS[env_id]
        self.render_mode = render_mode
        self.metadata = {
            "render_modes": ["rgb_array"],
            "render_fps": self.toy.frames_per_second,
        }
        self.observation_space = gymnasium.spaces.Box(
            -self.toy.obs_bound, self.toy.obs_bound, (self.toy.obs_dim,), np.float32
        )
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (self.toy.action_dim,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.states = [self.toy.start(self.np_random)]
        return self._observe(), {}

    def step(self, action):
        state, goal = self.toy.step(self.states[-1][None], np.asarray(action)[None])
        self.states.append(state[0])
        reached = bool(goal[0] >= 0)
        reward = float(self.toy.rewards[goal[0]]) if reached else 0.0
        info = {"is_success": reached, "goal": int(goal[0])}
        return self._observe(), reward, reached, False, info

    def _observe(self):
        return self.toy.observe(self.states[-1][None])[0].astype(np.float32)

    def render(self):
        """A picture (height, width, 3) of the way so far."""
        return plots.toy_frame(self.env_id, self.toy.positions(np.array(self.states)))


for _name, _toy in TOYS.items():
    gymnasium.register(
        id=_name,
        entry_point="offline_tasks.toy_envs:ToyEnv",
        max_episode_steps=_toy.max_steps,
        kwargs={"env_id": _name},
    )
