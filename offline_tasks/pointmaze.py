"""Point mazes: a body pushed through a maze, with data in which no trip goes from start to goal.

Only a policy that joins pieces of several trips arrives. The unit of length is a cell, of time a
step. The data are trips between random cells at most `longest_trip` apart, by a noisy controller
that follows the shortest path, until the trip is 60 steps long or meets the goal.
"""

import numpy as np

from offline_tasks.mazes import Maze

DAMPING = 0.85  # v' = DAMPING v + PUSH a: at most 0.2 cells a step
PUSH = 0.03
BOUNCE = -0.1  # the share of its velocity that a body keeps at a wall
HALF_WIDTH = 0.2  # of the body
START_RADIUS = 0.2
GOAL_RADIUS = 0.5
POSITION_SCALE = 0.5  # of the observation
VELOCITY_SCALE = 5.0

TRIP_STEPS = 60
SHORTEST_TRIP = 2  # cells
ACTION_NOISE = 0.4  # standard deviation, of the data's controller


class PointMaze:
    """The task in one maze. A state (4,) is a position and a velocity; the observation is the
    centred position / 2 and 5 x the velocity. Reward 1 within 0.5 of the goal."""

    obs_dim = 4
    action_dim = 2
    obs_bound = np.inf
    rewards = np.array([1.0])
    goal_radius = GOAL_RADIUS
    data_steps = TRIP_STEPS
    data_version = "r1"  # in the file name: change it whenever the data change
    frames_per_second = 20

    def __init__(self, maze: Maze, max_steps: int, longest_trip: int, data_rows: int):
        self.maze = maze
        self.max_steps = max_steps
        self.longest_trip = longest_trip
        self.data_rows = data_rows
        self.goals = maze.goal[None]
        self.bounds = np.stack((np.zeros(2), maze.size))  # of pictures

    def start(self, rng) -> np.ndarray:
        """The first state (4,) of an episode: at rest, within START_RADIUS of the start cell."""
        offset = rng.uniform(-START_RADIUS, START_RADIUS, 2)
        offset *= min(1.0, START_RADIUS / np.linalg.norm(offset))
        return self.at_rest(self.maze.start + offset)

    def observe(self, states: np.ndarray) -> np.ndarray:
        """Observations (n, 4), float32, of states."""
        position = states[:, :2] - self.maze.size / 2
        velocity = states[:, 2:]
        obs = np.concatenate((POSITION_SCALE * position, VELOCITY_SCALE * velocity), 1)
        return obs.astype(np.float32)

    def positions(self, states: np.ndarray) -> np.ndarray:
        """Positions (..., 2) of states."""
        return states[..., :2]

    def locate(self, obs: np.ndarray) -> np.ndarray:
        """Positions (n, 2) of observations."""
        return obs[:, :2] / POSITION_SCALE + self.maze.size / 2

    def at_rest(self, positions: np.ndarray) -> np.ndarray:
        """States (..., 4) at positions (..., 2)."""
        return np.concatenate((positions, np.zeros_like(positions)), -1)

    def step(self, states, actions) -> tuple[np.ndarray, np.ndarray]:
        """The next states (n, 4) and (n,) 0 at the goal, else -1. The axes move in turn; where the
        body would enter a wall, the axis keeps its position and the velocity turns."""
        position = states[:, :2]
        velocity = DAMPING * states[:, 2:] + PUSH * np.clip(actions, -1, 1)
        for axis in range(2):
            moved = position.copy()
            moved[:, axis] += velocity[:, axis]
            blocked = self.maze.overlaps_wall(moved, HALF_WIDTH)
            position = np.where(blocked[:, None], position, moved)
            velocity[blocked, axis] *= BOUNCE
        states = np.concatenate((position, velocity), 1)
        distance2 = ((position - self.maze.goal) ** 2).sum(1)
        return states, np.where(distance2 <= GOAL_RADIUS**2, 0, -1)

    def steer(self, obs: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Actions (n, 2), not clipped, towards the cells numbered `target` (n,) on the shortest
        path, with brakes."""
        obs = obs.astype(np.float64)
        position = self.locate(obs)
        velocity = obs[:, 2:] / VELOCITY_SCALE
        here = self.maze.cell_numbers(position)
        following = self.maze.toward[here, target]
        waypoint = self.maze.cells[following]
        return 4 * (waypoint - position) - 8 * velocity

    def behavior(self, rng):
        """The data's first states (n, 4) and its policy `act(observations, index)`. Twice as many
        trips as full ones would take, because the goal ends some early."""
        num_trips = 2 * self.data_rows // TRIP_STEPS
        origin, target = self._random_trips(num_trips, rng)

        def act(obs, index):
            noise = ACTION_NOISE * rng.standard_normal((len(obs), 2))
            action = self.steer(obs, target[index]) + noise
            # rounded as the file stores it, so that the data obey the dynamics exactly
            return np.clip(action, -1, 1).astype(np.float32)

        offset = rng.uniform(-START_RADIUS, START_RADIUS, (num_trips, 2))
        return self.at_rest(self.maze.cells[origin] + offset), act

    def _random_trips(self, num_trips: int, rng) -> tuple[np.ndarray, np.ndarray]:
        """First and last cells of trips, (n,) each: a random cell, then a random one of those near
        enough to it. No trip begins at the goal, where an episode is over."""
        distance = self.maze.distance
        allowed = (distance >= SHORTEST_TRIP) & (distance <= self.longest_trip)
        goal = self.maze.cell_numbers(self.maze.goal[None])
        origins = np.delete(np.arange(len(distance)), goal)
        origin = rng.choice(origins, num_trips)
        score = rng.random((num_trips, len(distance)))
        score[~allowed[origin]] = -1
        return origin, score.argmax(1)


TASKS = {
    "pointmaze-umaze-v0": PointMaze(Maze("umaze"), 150, longest_trip=3, data_rows=100_000),
    "pointmaze-medium-v0": PointMaze(Maze("medium"), 300, longest_trip=5, data_rows=200_000),
    "pointmaze-large-v0": PointMaze(Maze("large"), 400, longest_trip=6, data_rows=400_000),
    "pointmaze-walls-v0": PointMaze(
        Maze("walls", thin=True), 400, longest_trip=5, data_rows=300_000
    ),
}
