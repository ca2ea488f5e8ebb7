"""The paper's 2-D task with four goals (Appendix D.5): a point in [-1, 1]^2 driven by its velocity;
reward and end on reaching a goal. In the data every goal is headed for by a quarter of the
episodes, at full speed and with noise, so a policy that copies them has four modes."""

import numpy as np

GOALS = np.array([[0.7, 0.7], [-0.7, 0.7], [-0.7, -0.7], [0.7, -0.7]])
GOAL_RADIUS = 0.2
STEP_SIZE = 0.2
START_STD = 0.1
BEHAVIOR_NOISE = 0.3  # standard deviation, of the data's actions
DATA_EPISODES = 8000  # 38,273 transitions


class Multigoal:
    """The task with these rewards of the four goals. States and observations are positions."""

    obs_dim = 2
    action_dim = 2
    obs_bound = 1.0
    max_steps = 30
    data_steps = 30  # of an episode of the data, at most
    data_rows = None  # all
    data_version = "r1"  # in the file name: change it whenever the data change
    frames_per_second = 5
    goals = GOALS
    goal_radius = GOAL_RADIUS
    bounds = np.array([[-1.02, -1.02], [1.02, 1.02]])  # of pictures

    def __init__(self, *rewards: float):
        self.rewards = np.array(rewards)

    def start(self, rng) -> np.ndarray:
        """The first state (2,) of an episode."""
        return START_STD * rng.standard_normal(2)

    def observe(self, states: np.ndarray) -> np.ndarray:
        """Observations (n, 2) of states."""
        return states

    def positions(self, states: np.ndarray) -> np.ndarray:
        """Positions (..., 2) of states."""
        return states

    def locate(self, obs: np.ndarray) -> np.ndarray:
        """Positions (n, 2) of observations."""
        return obs

    def at_rest(self, positions: np.ndarray) -> np.ndarray:
        """States (n, 2) at positions."""
        return positions

    def step(self, states, actions) -> tuple[np.ndarray, np.ndarray]:
        """The next states (n, 2) and the goal (n,) that each is in, -1 for none."""
        states = np.clip(states + STEP_SIZE * np.clip(actions, -1, 1), -1, 1)
        offset = states[:, None] - GOALS
        inside = offset[..., 0] ** 2 + offset[..., 1] ** 2 <= GOAL_RADIUS**2
        return states, np.where(inside.any(1), inside.argmax(1), -1)

    def behavior(self, rng):
        """The data's first states (n, 2) and its policy `act(observations, index)`."""
        headed_for = rng.permutation(DATA_EPISODES) % len(GOALS)

        def act(position, index):
            direction = GOALS[headed_for[index]] - position
            direction /= np.sqrt((direction**2).sum(1, keepdims=True))
            noise = BEHAVIOR_NOISE * rng.standard_normal(position.shape)
            # rounded as the file stores it, so that the data obey the dynamics exactly
            return np.clip(direction + noise, -1, 1).astype(np.float32)

        return START_STD * rng.standard_normal((DATA_EPISODES, 2)), act


TASKS = {
    "multigoal-v0": Multigoal(1.0, 1.0, 1.0, 1.0),
    "multigoal-unequal-v0": Multigoal(1.0, 0.5, 0.5, 0.25),
}
