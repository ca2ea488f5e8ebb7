"""A task whose episodes take 2.5 s while a file $SLOW_WHILE is there, idle for the processor."""

import os
import time

import gymnasium
import numpy as np


class Slow(gymnasium.Env):
    """One step; the return is the first action."""

    observation_space = gymnasium.spaces.Box(-1, 1, (3,))
    action_space = gymnasium.spaces.Box(-1, 1, (2,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if os.path.isfile(os.environ.get("SLOW_WHILE", "")):
            time.sleep(2.5)
        return np.zeros(3, np.float32), {}

    def step(self, action):
        return np.zeros(3, np.float32), float(action[0]), True, False, {}


gymnasium.register("Slow-v0", Slow)
