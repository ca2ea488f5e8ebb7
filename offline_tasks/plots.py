"""Pictures of a run: learning curves, in toys also trajectories and a map of values.

matplotlib's Figure alone, without pyplot: no global state, no display, any thread.
"""

import sys
from pathlib import Path

import numpy as np

from offline_tasks import toys
from offline_tasks.files import replacing
from offline_tasks.pointmaze import PointMaze
from offline_tasks.rollout import episode_seeds

GOAL_COLORS = ["#3b6fb6", "#d1495b", "#3a9d6e", "#e09f3e", "#9a9a9a"]  # the last: none reached
DATA_COLOR = "#e3c08f"
WALL_COLOR = "#4a4a4a"
VALUE_PIXELS = 200  # along the longer side of a map


def plot_run(run_dir, env_id: str, evaluations: list[dict], act, seed: int, value=None) -> None:
    """The pictures of a run: learning_curve.png and, for toys, trajectories.png and, with
    `value(obs (n, obs_dim)) -> (n,)`, value.png. One that fails is a line on stderr."""
    try:
        draw_run(Path(run_dir), env_id, evaluations, act, seed, value)
    except Exception as error:  # whatever it is, the run itself is done and saved
        print(f"no pictures: {error}", file=sys.stderr)


def draw_run(run_dir: Path, env_id: str, evaluations: list[dict], act, seed: int, value) -> None:
    """plot_run, with any exception that drawing raises."""
    plot_learning_curve(evaluations, run_dir / "learning_curve.png", run_dir.name)
    if env_id and toys.owns(env_id):
        plot_trajectories(env_id, act, run_dir / "trajectories.png", seed)
        if value is not None:
            plot_value(env_id, value, run_dir / "value.png")


# ---- learning curve ------------------------------------------------------------------------------


def plot_learning_curve(evaluations: list[dict], path, title: str) -> None:
    """PNG, over the updates, of the normalised score with its standard deviation (or of the return,
    where there is no score) and of the held-out energy score by number of steps K. Whatever is
    missing or None in `evaluations` is left out."""
    panels = _panels(evaluations)
    figure = _figure(5 * len(panels), 3.6)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (y_label, curves) in zip(axes, panels.items(), strict=True):
        _draw_curves(axis, y_label, curves)
    updates, score = _curve(evaluations, "normalized_score")
    _, std = _curve(evaluations, "normalized_score_std")
    if len(score) and len(std) == len(score):
        low = score - std
        high = score + std
        axes[0].fill_between(updates, low, high, alpha=0.15, lw=0)
    figure.suptitle(title, parse_math=False)  # a folder's name may hold $
    _save(figure, path)


def _draw_curves(axis, y_label: str, curves: dict[str, np.ndarray]) -> None:
    for label, points in curves.items():
        axis.plot(*points, marker=".", label=label)
    if "" not in curves:
        axis.legend(frameon=False)
    axis.set_xlabel("updates")
    axis.set_ylabel(y_label)
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)


def _panels(evaluations: list[dict]) -> dict[str, dict[str, np.ndarray]]:
    """y label: {label of a curve: its points (2, n)}; at least one panel."""
    panels = {}
    score = _curve(evaluations, "normalized_score")
    returns = _curve(evaluations, "episodic_return")
    if score.size:
        panels["normalized score"] = {"": score}
    elif returns.size:
        panels["return"] = {"": returns}
    energy = _energy_curves(evaluations)
    has_energy = any(points.size for points in energy.values())
    if has_energy or not panels:
        panels["held-out energy score (lower is better)"] = energy
    return panels


def _curve(evaluations: list[dict], key: str) -> np.ndarray:
    """Updates and values (2, n) of the evaluations that have the value."""
    having = [e for e in evaluations if e.get(key) is not None]
    updates = [e["update"] for e in having]
    values = [e[key] for e in having]
    return np.array([updates, values], dtype=float)


def _energy_curves(evaluations: list[dict]) -> dict[str, np.ndarray]:
    """One curve per number of steps K, or a single one where there is no such number."""
    by_steps = []
    numbers = set()
    for evaluation in evaluations:
        scores = evaluation.get("energy_score_by_steps") or {}
        numbers |= scores.keys()
        by_steps.append(scores | {"update": evaluation["update"]})
    if not numbers:
        return {"": _curve(evaluations, "energy_score")}
    curves = {}
    for number in sorted(numbers, key=int):
        curves[f"K = {number}"] = _curve(by_steps, number)
    return curves


# ---- toys ----------------------------------------------------------------------------------------


def plot_trajectories(env_id: str, act, path, seed: int, num_episodes: int = 200) -> None:
    """PNG of a toy's episodes of `act`."""
    figure = _toy_figure(env_id, panels=1)
    draw_trajectories(figure.axes[0], env_id, act, seed, num_episodes)
    _save(figure, path)


def plot_value(env_id: str, value, path) -> None:
    """PNG of the values `value(obs (n, obs_dim)) -> (n,)` of a toy's states, those at rest."""
    figure = _toy_figure(env_id, panels=1)
    draw_value(figure.axes[0], env_id, value)
    _save(figure, path)


def plot_data_and_policy(env_id: str, act, path, seed: int, num_episodes: int = 200) -> None:
    """PNG: on the left a sample of a toy's data, on the right episodes of `act`."""
    figure = _toy_figure(env_id, panels=2)
    left, right = figure.axes
    draw_data(left, env_id, num_episodes)
    left.set_title(_data_title(_toy(env_id)))
    draw_trajectories(right, env_id, act, seed, num_episodes, data_episodes=0)
    right.set_title("the policy")
    _save(figure, path)


def draw_trajectories(
    axis, env_id: str, act, seed: int, num_episodes: int = 200, data_episodes: int = 200
) -> None:
    """What `plot_trajectories` shows, on a matplotlib axis: episodes coloured by the goal that they
    reached, each goal with their share; in a maze over a sample of the data. Raises ValueError for
    a task that is no toy."""
    toy = _toy(env_id)
    if isinstance(toy, PointMaze) and data_episodes > 0:
        _draw_paths(axis, _data_paths(env_id, data_episodes), DATA_COLOR)
    start = toys.starts(toy, episode_seeds(seed, num_episodes))

    def policy(obs, index):
        return act(obs.astype(np.float32))

    episodes = toys.rollout(toy, start, policy, toy.max_steps)
    paths = toy.positions(episodes.states).swapaxes(0, 1)
    colors = [GOAL_COLORS[goal] for goal in episodes.goals]
    _draw_paths(axis, paths, colors)
    _draw_dots(axis, paths[:, 0])
    labels = []
    for goal in range(len(toy.rewards)):
        share = (episodes.goals == goal).mean()
        labels.append(f"{share:.0%}")
    _draw_map(axis, toy, labels)


def draw_data(axis, env_id: str, num_episodes: int = 200) -> None:
    """The first episodes of a toy's data, on a matplotlib axis, each from a dot."""
    toy = _toy(env_id)
    paths = _data_paths(env_id, num_episodes)
    _draw_paths(axis, paths, GOAL_COLORS[:4])
    first = np.array([path[0] for path in paths])
    _draw_dots(axis, first)
    _draw_map(axis, toy, ["goal"] * len(toy.rewards))


def draw_value(axis, env_id: str, value) -> None:
    """What `plot_value` shows, on a matplotlib axis, with its colour bar."""
    toy = _toy(env_id)
    low, high = toy.bounds
    pixel = max(high - low) / VALUE_PIXELS
    first = low + pixel / 2
    x = np.arange(first[0], high[0], pixel)
    y = np.arange(first[1], high[1], pixel)
    grid = np.stack(np.meshgrid(x, y), -1)
    states = toy.at_rest(grid.reshape(-1, 2))
    obs = toy.observe(states).astype(np.float32)
    values = np.asarray(value(obs))
    if values.shape != (len(obs),):
        raise ValueError(f"value gave shape {values.shape}: {(len(obs),)} is needed")
    values = values.reshape(len(y), len(x))
    mesh = axis.pcolormesh(x, y, values, cmap="viridis")
    axis.figure.colorbar(mesh, ax=axis, label="V(s)", shrink=0.8)
    _draw_map(axis, toy, ["goal"] * len(toy.rewards))


def toy_frame(env_id: str, positions: np.ndarray) -> np.ndarray:
    """A picture (480, 480, 3) of a toy and the positions (n, 2) passed so far."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = _figure(4.8, 4.8, dpi=100)
    canvas = FigureCanvasAgg(figure)
    axis = figure.subplots()
    toy = _toy(env_id)
    _draw_map(axis, toy, toy.rewards)
    axis.plot(*positions.T, color="black", marker="o", markevery=[-1])
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())
    return pixels[..., :3].copy()


def _toy(env_id: str):
    if not toys.owns(env_id):
        raise ValueError(f"such pictures are drawn for {', '.join(toys.TOYS)}, not {env_id}")
    return toys.TOYS[env_id]


def _toy_figure(env_id: str, panels: int):
    """An empty figure with panels of the toy's proportions side by side."""
    low, high = _toy(env_id).bounds
    size = high - low
    width, height = 5 * size / max(size)
    figure = _figure(panels * width, height + 0.3)
    figure.subplots(1, panels)
    return figure


def _data_title(toy) -> str:
    if isinstance(toy, PointMaze):
        return f"the data: no trip longer than {toy.longest_trip} cells"
    return "the data"


def _data_paths(env_id: str, num_episodes: int) -> list[np.ndarray]:
    """Positions (steps, 2) of the first episodes of a toy's data."""
    data = toys.make_data(env_id)
    last = data["terminals"] | data["timeouts"]
    ends = np.flatnonzero(last)[:num_episodes] + 1
    positions = toys.TOYS[env_id].locate(data["observations"])
    return np.split(positions, ends)[:-1]


def _draw_paths(axis, paths, colors) -> None:
    from matplotlib.collections import LineCollection

    lines = LineCollection(paths, colors=colors, lw=0.8, alpha=0.5)
    axis.add_collection(lines)


def _draw_dots(axis, positions: np.ndarray) -> None:
    axis.plot(*positions.T, color="black", ls="", marker=".", markersize=3, zorder=3)


def _draw_map(axis, toy, labels) -> None:
    """A toy's goals with their labels, in a maze also its walls and start."""
    low, high = toy.bounds
    axis.set_xlim(low[0], high[0])
    axis.set_ylim(low[1], high[1])
    axis.set(aspect="equal", xticks=[], yticks=[])
    if isinstance(toy, PointMaze):
        axis.invert_yaxis()
        _draw_walls(axis, toy.maze)
        _label(axis, toy.maze.start, "start")
    for goal, color, label in zip(toy.goals, GOAL_COLORS, labels, strict=False):
        _draw_goal(axis, goal, toy.goal_radius, color)
        _label(axis, goal, label)


def _draw_walls(axis, maze) -> None:
    from matplotlib.colors import ListedColormap

    walls = np.ma.masked_where(~maze.walls, maze.walls)
    color = ListedColormap([WALL_COLOR])
    axis.pcolormesh(*maze.edges, walls.T, cmap=color, zorder=1)


def _draw_goal(axis, goal, radius: float, color: str) -> None:
    from matplotlib.patches import Circle

    disc = Circle(goal, radius, facecolor=color, alpha=0.25, lw=0)
    edge = Circle(goal, radius, fill=False, edgecolor=color, lw=1.5)
    axis.add_patch(disc)
    axis.add_patch(edge)


def _label(axis, position, text) -> None:
    style = {
        "ha": "center",
        "va": "center",
        "weight": "bold",
        "bbox": {"boxstyle": "round", "facecolor": "white", "alpha": 0.7, "lw": 0},
        "zorder": 4,
    }
    axis.annotate(text, position, **style)


# ---- figures -------------------------------------------------------------------------------------


def _figure(width: float, height: float, dpi: int = 120):
    """An empty figure of so many inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=dpi, layout="constrained")


def _save(figure, path) -> None:
    with replacing(path) as temporary:
        figure.savefig(temporary)
