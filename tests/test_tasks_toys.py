"""offline_tasks.toys: multigoal and pointmaze, their dynamics and their data."""

import hashlib

import numpy as np
import pytest

import offline_tasks
from offline_tasks import evaluate, multigoal, pointmaze, toys


def digest(data):
    """Of the data in thousandths, which the last bits of another machine do not change."""
    content = hashlib.sha256()
    for key in ("observations", "actions", "rewards", "terminals", "timeouts"):
        thousandths = np.rint(1000 * data[key].astype(np.float64)).astype("<i4")
        content.update(f"{key} {thousandths.shape}".encode() + thousandths.tobytes())
    return content.hexdigest()[:16]


# Change a toy's data_version with its digest: files of that name lie on people's disks.
DIGESTS = {
    "multigoal-v0": ("0c4021f6383da6d4", "r1"),
    "multigoal-unequal-v0": ("2274ade78a15556a", "r1"),
    "pointmaze-umaze-v0": ("4995bd9754e9db01", "r1"),
    "pointmaze-medium-v0": ("e5b24df63e509fe6", "r1"),
    "pointmaze-large-v0": ("fe50f83afc2ab256", "r1"),
    "pointmaze-walls-v0": ("acd69ef3139332b0", "r1"),
}


@pytest.mark.parametrize("env_id", toys.TOYS)
def test_the_data_are_pinned(env_id, tmp_path, monkeypatch):
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path))
    with np.load(offline_tasks.dataset_file(env_id)) as file:
        found = {env_id: (digest(dict(file)), toys.TOYS[env_id].data_version)}
    assert found == {env_id: DIGESTS[env_id]}


def test_a_digest_sees_a_thousandth():
    data = toys.make_data("pointmaze-umaze-v0")
    before = digest(data)
    data["actions"][777, 1] += 0.001 if data["actions"][777, 1] < 0 else -0.001
    assert digest(data) != before


@pytest.mark.parametrize("content", [b"", b"text", b"\x89HDF\r\n\x1a\n", "cut off", "a key"])
@pytest.mark.parametrize("env_id", ["multigoal-v0", "pointmaze-umaze-v0"])
def test_a_damaged_file_is_to_be_deleted_and_is_made_again(env_id, content, tmp_path, monkeypatch):
    """It was never downloaded. One that a person has named is theirs."""
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path))
    path = offline_tasks.dataset_file(env_id)
    whole = path.read_bytes()
    contents = {"cut off": whole[:-99], "a key": whole.replace(b"rewards", b"Rewards")}
    path.write_bytes(contents.get(content, content))
    path.with_name("mine.npz").write_bytes(path.read_bytes())
    said = f"^dataset {path} is damaged: delete it, it is made again$"
    with pytest.raises(ValueError, match=said):
        offline_tasks.load_dataset(path, env_id)
    with pytest.raises(ValueError, match=r"mine.npz cannot be read as HDF5 or NPZ"):
        offline_tasks.load_dataset(path.with_name("mine.npz"), env_id)
    path.unlink()
    assert offline_tasks.dataset_file(env_id).read_bytes() == whole


# ---- multigoal -----------------------------------------------------------------------------------


@pytest.fixture
def multigoal_data(tmp_path, monkeypatch):
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path))
    with np.load(offline_tasks.dataset_file("multigoal-v0")) as file:
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
    distance = np.linalg.norm(moved[:, None] - multigoal.GOALS, axis=-1)
    inside = distance.min(1) <= 0.2
    assert (inside == multigoal_data["terminals"]).mean() > 0.9999  # but for float32 rounding
    counts = np.bincount(distance[multigoal_data["terminals"]].argmin(1))
    np.testing.assert_array_equal(counts, len(starts) // 4)
    assert len(starts) == multigoal.DATA_EPISODES


def test_multigoal_unequal_differs_in_the_rewards_alone(multigoal_data):
    with np.load(offline_tasks.dataset_file("multigoal-unequal-v0")) as file:
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


def test_multigoal_walls_and_goals():
    toy = multigoal.TASKS["multigoal-v0"]
    states = np.array([[0.95, 0.0], [-0.95, -0.1], [0.0, 0.95], [0.3, -0.9], [0.0, 0.1]])
    actions = np.array([[1.0, 0.5], [-5.0, 0.0], [0.0, 0.9], [0.1, -1.0], [3.0, -2.0]])
    moved, goals = toy.step(states, actions)
    expected = [[1.0, 0.1], [-1.0, -0.1], [0.0, 1.0], [0.32, -1.0], [0.2, -0.1]]
    np.testing.assert_allclose(moved, expected, atol=1e-12)
    np.testing.assert_array_equal(goals, -1)


@pytest.mark.parametrize("goal, center", list(enumerate([(7, 7), (-7, 7), (-7, -7), (7, -7)])))
def test_multigoal_goals_have_their_radius(goal, center):
    toy = multigoal.TASKS["multigoal-unequal-v0"]
    directions = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])
    inside = np.array(center) / 10 + 0.199 * directions
    outside = np.array(center) / 10 + 0.201 * directions
    np.testing.assert_array_equal(toy.step(inside, np.zeros((4, 2)))[1], goal)
    np.testing.assert_array_equal(toy.step(outside, np.zeros((4, 2)))[1], -1)


# ---- pointmaze -----------------------------------------------------------------------------------

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
THIN_WALLS = """
###########
#R    #   #
##### # # #
#G# #   # #
# # ##### #
# #       #
# # ##### #
# # #     #
# ### ### #
#     #   #
###########"""
LIMITS = {"umaze": 150, "medium": 300, "large": 400, "walls": 400}
LONGEST = {"umaze": 3, "medium": 5, "large": 6, "walls": 5}
START_TO_GOAL = {"umaze": 6, "medium": 10, "large": 14, "walls": 17}
ROWS = {"umaze": 100_000, "medium": 200_000, "large": 400_000, "walls": 300_000}
MAZES = list(LIMITS)


def maze_task(name):
    return pointmaze.TASKS[f"pointmaze-{name}-v0"]


def walls_of(name):
    """Rectangles (left, top, right, bottom) of a maze's walls, and {(column, row): mark} of its
    free cells: from the map, without the code under test."""
    if name in MAPS:
        rows = MAPS[name].split("\n")[1:]
        places = {(x, y): c for y, row in enumerate(rows) for x, c in enumerate(row)}
        walls = [(x, y, x + 1, y + 1) for (x, y), c in places.items() if c == "#"]
        return np.array(walls, float), {cell: c for cell, c in places.items() if c != "#"}
    walls, cells = [], {}
    for y, row in enumerate(THIN_WALLS.split("\n")[1:]):
        for x, c in enumerate(row):
            if c == "#":  # in an odd place as long as a cell leaves, in an even one 0.2
                left, top = (place // 2 + (0.1 if place % 2 else -0.1) for place in (x, y))
                width, height = (0.8 if place % 2 else 0.2 for place in (x, y))
                walls.append((left, top, left + width, top + height))
            elif x % 2 and y % 2:
                cells[x // 2, y // 2] = c
    return np.array(walls), cells


def touches(position, walls):
    """(n,), True where a square of half-width 0.2 overlaps one of the rectangles."""
    low, high = position - 0.2, position + 0.2
    apart = (high[:, None] <= walls[:, :2]) | (low[:, None] >= walls[:, 2:])
    return ~apart.any(-1).all(-1)


def paths_of(name):
    """{(cell, cell): steps of the shortest path}."""
    walls, cells = walls_of(name)
    steps = {}
    for origin in cells:
        front, seen, count = {origin}, set(), 0
        while front:
            steps |= {(origin, cell): count for cell in front}
            seen |= front
            count += 1
            near = {
                (x + i, y + j, i, j)
                for x, y in front
                for i, j in ((1, 0), (-1, 0), (0, 1), (0, -1))
            }
            front = {
                (x, y)
                for x, y, i, j in near
                if (x, y) in cells
                and (x, y) not in seen
                and not touches(np.array([[x + 0.5 - i / 2, y + 0.5 - j / 2]]), walls)[0]
            }
    return steps


@pytest.mark.parametrize("name", MAZES)
def test_maze_walls_are_where_the_map_has_them(name):
    task = maze_task(name)
    walls, cells = walls_of(name)
    rng = np.random.default_rng(0)
    position = rng.uniform(0.21, task.maze.size - 0.21, (20_000, 2))
    np.testing.assert_array_equal(task.maze.overlaps_wall(position, 0.2), touches(position, walls))
    assert 0.1 < touches(position, walls).mean() < 0.9
    assert task.maze.number.max() + 1 == len(cells)
    assert cells[tuple(np.floor(task.maze.start))] == "R"
    assert cells[tuple(np.floor(task.maze.goal))] == "G"


@pytest.mark.parametrize("name", MAZES)
def test_maze_paths_are_the_shortest(name):
    maze, steps = maze_task(name).maze, paths_of(name)
    names = [tuple(cell) for cell in (maze.cells - 0.5).astype(int)]
    expected = [[steps[one, other] for other in names] for one in names]
    np.testing.assert_array_equal(maze.distance, expected)
    start, goal = maze.cell_numbers(np.stack((maze.start, maze.goal)))
    assert maze.distance[start, goal] == START_TO_GOAL[name] >= 2 * LONGEST[name]
    for one, other in np.argwhere(maze.distance > 0):
        following = maze.toward[one, other]
        assert maze.distance[one, following] == 1
        assert maze.distance[following, other] == maze.distance[one, other] - 1


def test_maze_dynamics_by_hand():
    """In umaze: freely; against the wall on the right; sliding along it; clipped actions."""
    task = maze_task("umaze")
    states = [[2.0, 1.5, 0.1, -0.02], [3.75, 1.5, 0.1, 0.0], [3.75, 1.5, 0.1, 0.05]]
    states = np.array([*states, [2.0, 1.5, 0.0, 0.0], [3.78, 1.5, 0.02, 0.0]])
    actions = np.array([[0.5, 1.0], [1.0, 0.0], [0.0, 1.0], [7.0, -9.0], [0.0, 0.0]])
    moved, goals = task.step(states, actions)
    expected = [
        [2.1, 1.513, 0.1, 0.013],
        [3.75, 1.5, -0.0115, 0.0],  # v' = 0.115 turns to -0.1 v'; the position stays
        [3.75, 1.5725, -0.0085, 0.0725],  # the other axis goes on
        [2.03, 1.47, 0.03, -0.03],
        [3.797, 1.5, 0.017, 0.0],  # its edge just before the wall
    ]
    np.testing.assert_allclose(moved, expected, atol=1e-12)
    np.testing.assert_array_equal(goals, -1)


def test_maze_axes_move_in_turn():
    """Round a convex corner: x frees the way for y in the same step, but not y for x."""
    task = maze_task("umaze")
    # the wall block ends at x = 3, below the corridor at y = 2; the way down is beyond x = 3.2
    corner = np.array([[3.15, 1.75, 0.1, 0.1], [3.25, 2.95, -0.1, 0.1]])
    moved, _ = task.step(corner, np.array([[1.0, 1.0], [-1.0, 1.0]]))
    np.testing.assert_allclose(moved[0], [3.265, 1.865, 0.115, 0.115], atol=1e-12)
    np.testing.assert_allclose(moved[1], [3.25, 3.065, 0.0115, 0.115], atol=1e-12)


@pytest.mark.parametrize("name", MAZES)
def test_maze_observations(name):
    task = maze_task(name)
    states = np.array([[1.5, 2.25, 0.1, -0.04]])
    width, height = task.maze.size
    expected = [[(1.5 - width / 2) / 2, (2.25 - height / 2) / 2, 0.5, -0.2]]
    obs = task.observe(states)
    assert obs.dtype == np.float32
    np.testing.assert_allclose(obs, expected, atol=1e-6)
    np.testing.assert_allclose(task.locate(obs), states[:, :2], atol=1e-6)


def test_maze_goal_and_limits():
    for name, limit in LIMITS.items():
        assert offline_tasks.task_dims(f"pointmaze-{name}-v0") == (4, 2, limit)
    task = maze_task("large")
    for distance, goal in ((0.49, 0), (0.51, -1)):
        states = np.r_[task.maze.goal + distance * np.array([0.8, 0.6]), 0, 0][None]
        assert task.step(states, np.zeros((1, 2)))[1] == goal
    reached = toys.rollout(task, np.r_[task.maze.goal, 0, 0][None], lambda o, i: o[:, :2], 3)
    assert (reached.returns, reached.lengths, reached.goals) == (1, 1, 0)


@pytest.mark.parametrize("name", MAZES)
def test_maze_episodes_start_near_the_start(name):
    task = maze_task(name)
    states = toys.starts(task, range(500))
    offset = states[:, :2] - task.maze.start
    assert 0.19 < np.linalg.norm(offset, axis=1).max() <= 0.2 + 1e-12
    np.testing.assert_allclose(offset.mean(0), 0, atol=0.02)
    assert (states[:, 2:] == 0).all()


def follow(name):
    """The issue's controller on the shortest path to the goal, from the map alone."""
    steps = paths_of(name)
    _, cells = walls_of(name)
    (goal,) = [cell for cell, mark in cells.items() if mark == "G"]
    following = {goal: goal}
    for cell in cells:
        if cell != goal:
            nearer = [
                c for c in cells if steps[cell, c] == 1 and steps[c, goal] < steps[cell, goal]
            ]
            following[cell] = nearer[0]
    size = maze_task(name).maze.size

    def act(obs):
        position = 2 * obs[:, :2] + size / 2
        cell = [tuple(c) for c in np.floor(position).astype(int)]
        waypoint = np.array([following[c] for c in cell]) + 0.5
        return np.clip(4 * (waypoint - position) - 8 * obs[:, 2:] / 5, -1, 1)

    return act


@pytest.mark.parametrize("name", MAZES)
def test_following_shortest_paths_scores_100_and_doing_nothing_0(name):
    env_id = f"pointmaze-{name}-v0"
    best = evaluate(env_id, follow(name), 50, seed=0)
    assert (best["normalized_score"], best["episodic_return"]) == (100, 1)
    assert best["episodic_length"] < LIMITS[name] / 2
    nothing = evaluate(env_id, lambda obs: np.zeros((len(obs), 2)), 50, seed=0)
    assert (nothing["normalized_score"], nothing["episodic_return"]) == (0, 0)
    assert nothing["episodic_length"] == LIMITS[name] and nothing["goal_fractions"] is None


@pytest.fixture(scope="module", params=MAZES)
def maze_data(request):
    return request.param, toys.make_data(f"pointmaze-{request.param}-v0")


def trips_of(data):
    ends = np.flatnonzero(data["terminals"] | data["timeouts"]) + 1
    return np.split(np.arange(len(data["rewards"])), ends)[:-1]


def test_maze_data_obey_the_dynamics(maze_data):
    name, data = maze_data
    task, walls = maze_task(name), walls_of(name)[0]
    assert {key: len(value) for key, value in data.items()} == dict.fromkeys(data, ROWS[name])
    obs = data["observations"].astype(np.float64)
    states = np.c_[task.locate(obs), obs[:, 2:] / 5]
    assert not touches(states[::7, :2], walls).any()
    moved, goals = task.step(states, data["actions"])
    ends = data["terminals"] | data["timeouts"]
    np.testing.assert_array_equal(goals == 0, data["terminals"])
    np.testing.assert_array_equal(data["rewards"], data["terminals"])
    error = np.abs(task.observe(moved)[:-1] - data["observations"][1:])[~ends[:-1]]
    # but where float32 rounding decides whether the body meets a wall
    assert error.max(1).mean() < 1e-5 and (error.max(1) > 1e-5).mean() < 1e-4
    assert data["terminals"].sum() > 100 and ends[-1]


def test_no_trip_of_the_data_goes_from_start_to_goal(maze_data):
    """Nor further than the longest trip; each begins at rest and lasts 60 steps or to the goal."""
    name, data = maze_data
    task = maze_task(name)
    position = task.locate(data["observations"].astype(np.float64))
    cells = task.maze.cell_numbers(position)
    start, goal = task.maze.cell_numbers(np.stack((task.maze.start, task.maze.goal)))
    trips = trips_of(data)
    begins = np.array([trip[0] for trip in trips])
    lengths = np.array([len(trip) for trip in trips])
    assert lengths.max() == 60 and lengths.sum() == len(cells)
    assert (lengths[:-1][data["timeouts"][begins[1:] - 1]] == 60).all()
    origin = np.repeat(cells[begins], lengths)
    distance = task.maze.distance[origin, cells]
    furthest = np.maximum.reduceat(distance, begins)
    full = data["timeouts"][begins + lengths - 1] & (lengths == 60)  # not met by the goal
    assert furthest.max() == LONGEST[name] and furthest[full].min() == 2
    at_start = np.maximum.reduceat(cells == start, begins)
    at_goal = data["terminals"][begins + lengths - 1]
    assert at_start.sum() > 50 and at_goal.sum() > 50 and not (at_start & at_goal).any()
    assert set(cells[begins]) == set(range(len(task.maze.cells))) - {goal}
    np.testing.assert_array_equal(data["observations"][begins, 2:], 0)
    assert np.abs(position[begins] - task.maze.cells[cells[begins]]).max() <= 0.2 + 1e-6


def test_the_controller_of_the_mazes_data_by_hand():
    """4 (waypoint - position) - 8 velocity; the waypoint is the next cell of the shortest path."""
    task = maze_task("umaze")
    states = np.array([[1.6, 1.4, 0.05, 0.01], [3.5, 1.45, 0.0, 0.0], [1.5, 3.25, 0.0, -0.01]])
    goal = np.repeat(task.maze.cell_numbers(task.maze.goal[None]), 3)
    expected = [[4 * 0.9 - 0.4, 0.4 - 0.08], [0.0, 4 * 1.05], [0.0, 1.0 + 0.08]]
    np.testing.assert_allclose(task.steer(task.observe(states), goal), expected, atol=1e-5)


def test_the_noise_of_the_mazes_data():
    """Of actions that no bound cut: what the controller without noise leaves over."""
    task = maze_task("medium")
    rng = np.random.default_rng(0)
    start, act = task.behavior(rng)
    index = np.arange(len(start))
    obs = task.observe(start)
    actions = np.stack([act(obs, index) for _ in range(400)])
    middle = np.abs(np.median(actions, 0)) < 0.2  # then the bounds cut 2 %, evenly
    assert middle.sum() > 100 and np.abs(actions).max() == 1
    spread = np.percentile(actions[:, middle], 84.13, axis=0) - np.median(actions[:, middle], 0)
    assert spread.mean() == pytest.approx(0.4, abs=0.01)


def test_toys_are_registered_in_gymnasium():
    import gymnasium

    for env_id, toy in toys.TOYS.items():
        env = gymnasium.make(f"offline_tasks.toy_envs:{env_id}")
        obs, _ = env.reset(seed=3)
        first = toys.starts(toy, [3])
        np.testing.assert_array_equal(obs, toy.observe(first)[0].astype(np.float32))
        assert env.observation_space.contains(obs)
        steps = 0
        over = False
        while not over:
            _, reward, terminated, truncated, _ = env.step(np.zeros(2, np.float32))
            over = terminated or truncated
            steps += 1
        assert (steps, reward, truncated) == (toy.max_steps, 0.0, True)


@pytest.mark.parametrize("goal, reward", [(0, 1.0), (1, 0.5), (2, 0.5), (3, 0.25)])
def test_a_step_of_the_environment_into_a_goal(goal, reward):
    env = offline_tasks.make_env("multigoal-unequal-v0")
    env.reset(seed=0)
    heading = np.sign(multigoal.GOALS[goal])
    for _ in range(4):
        obs, got, terminated, truncated, info = env.step(heading)
        if terminated:
            break
        assert (got, info) == (0.0, {"is_success": False, "goal": -1})
    assert (got, truncated, info) == (reward, False, {"is_success": True, "goal": goal})
    assert np.linalg.norm(obs - multigoal.GOALS[goal]) <= 0.2
