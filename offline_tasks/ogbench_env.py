"""The environments of OGBench, each with random numbers of its own, and used again."""

import contextlib
import warnings

import gymnasium
import numpy as np


class OGBenchEnv(gymnasium.Wrapper):
    """OGBench's mazes draw from NumPy's global generator: here each environment puts its own, which
    `reset(seed)` seeds, in that place for as long as it draws. `close` puts the environment into
    `idle`, to be used again: OGBench takes up to a second to build one, and leaves a file open."""

    def __init__(self, env, idle: list):
        super().__init__(env)
        self.idle = idle
        self.generator = np.random.MT19937()
        # A robot arm makes these anew, and warns, at every look.
        with without_warnings():
            self.action_space = env.action_space
            self.observation_space = env.observation_space

    @contextlib.contextmanager
    def _own_random_numbers(self):
        # Exchanging the states instead would take longer than a step.
        outer = np.random.get_bit_generator()
        np.random.set_bit_generator(self.generator)
        try:
            yield
        finally:
            np.random.set_bit_generator(outer)

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            self.generator = np.random.MT19937(seed)
        with self._own_random_numbers(), without_warnings():
            return self.env.reset(seed=seed, options=options)

    def step(self, action):
        with self._own_random_numbers():
            return self.env.step(action)

    def close(self):
        if self not in self.idle:
            self.idle.append(self)


@contextlib.contextmanager
def without_warnings():
    """Of a missing display, and of the precision of bounds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
