"""The environments of OGBench, each with random numbers of its own, and used again."""

import contextlib

import gymnasium
import numpy as np


class OGBenchEnv(gymnasium.Wrapper):
    """OGBench's mazes draw from NumPy's global generator: here each environment has a state of it
    that `reset(seed)` sets, and the caller's own stays as it was. `close` puts the environment into
    `idle`, to be used again: OGBench takes up to a second to build one, and leaves a file open."""

    def __init__(self, env, idle: list):
        super().__init__(env)
        self.action_space = env.action_space  # a robot arm's property warns at every look
        self.idle = idle
        self.random_state = np.random.RandomState().get_state()

    @contextlib.contextmanager
    def _own_random_numbers(self):
        outer = np.random.get_state()
        np.random.set_state(self.random_state)
        try:
            yield
        finally:
            self.random_state = np.random.get_state()
            np.random.set_state(outer)

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            self.random_state = np.random.RandomState(seed).get_state()
        with self._own_random_numbers():
            return self.env.reset(seed=seed, options=options)

    def step(self, action):
        with self._own_random_numbers():
            return self.env.step(action)

    def close(self):
        if self not in self.idle:
            self.idle.append(self)
