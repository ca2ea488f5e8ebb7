"""Pictures of a run: learning curves, trajectories and values in toy tasks, videos.

matplotlib's Figure alone, without pyplot: no global state, no display, any thread.
"""

import contextlib
import importlib.util
from pathlib import Path

import numpy as np

from offline_tasks import multigoal, toys
from offline_tasks.files import replacing
from offline_tasks.registry import make_env, task_dims
from offline_tasks.rollout import episode_seeds

GOAL_COLORS = ["#3b6fb6", "#d1495b", "#3a9d6e", "#e09f3e", "#9a9a9a"]  # the last: none reached
MAX_FPS = 25  # of a video, unless asked for more


def plot_run(run_dir, env_id: str, evaluations: list[dict], act, seed: int, value=None) -> None:
    """The pictures of a run: learning_curve.png and, for toys, trajectories.png."""
    run_dir = Path(run_dir)
    plot_learning_curve(evaluations, run_dir / "learning_curve.png", run_dir.name)
    if env_id and toys.owns(env_id):
        plot_trajectories(env_id, act, run_dir / "trajectories.png", seed)


# ---- learning curve ------------------------------------------------------------------------------


def plot_learning_curve(evaluations: list[dict], path, title: str) -> None:
    """PNG, over the updates, of the normalised score with its standard deviation (or of the return,
    where there is no score) and of the held-out energy score by number of steps K. Whatever is
    missing or None in `evaluations` is left out."""
    panels = _panels(evaluations)
    figure = _figure(5 * len(panels), 3.6)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (y_label, curves) in zip(axes, panels.items(), strict=True):
        for label, points in curves.items():
            axis.plot(*points, marker=".", label=label)
        if "" not in curves:
            axis.legend(frameon=False)
        axis.set(xlabel="updates", ylabel=y_label)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    updates, score = _curve(evaluations, "normalized_score")
    std = _curve(evaluations, "normalized_score_std")[1]
    if len(score) and len(std) == len(score):
        axes[0].fill_between(updates, score - std, score + std, alpha=0.15, lw=0)
    figure.suptitle(title)
    _save(figure, path)


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
    if any(points.size for points in energy.values()) or not panels:
        panels["held-out energy score (lower is better)"] = energy
    return panels


def _curve(evaluations: list[dict], key: str) -> np.ndarray:
    """Updates and values (2, n) of the evaluations that have the value."""
    points = [(e["update"], e[key]) for e in evaluations if e.get(key) is not None]
    return np.array(points, dtype=float).reshape(-1, 2).T


def _energy_curves(evaluations: list[dict]) -> dict[str, np.ndarray]:
    """One curve per number of steps K, or a single one where there is no such number."""
    by_steps = []
    for evaluation in evaluations:
        scores = evaluation.get("energy_score_by_steps") or {}
        by_steps.append({"update": evaluation["update"]} | scores)
    steps = {key for scores in by_steps for key in scores if key != "update"}
    if not steps:
        return {"": _curve(evaluations, "energy_score")}
    return {f"K = {key}": _curve(by_steps, key) for key in sorted(steps, key=int)}


# ---- toys ----------------------------------------------------------------------------------------


def plot_trajectories(env_id: str, act, path, seed: int, num_episodes: int = 200) -> None:
    """PNG of a toy's episodes of `act`."""
    figure = _figure(5, 5)
    draw_trajectories(figure.subplots(), env_id, act, seed, num_episodes)
    _save(figure, path)


def draw_trajectories(axis, env_id: str, act, seed: int, num_episodes: int = 200) -> None:
    """What `plot_trajectories` shows, on a matplotlib axis: coloured by the goal reached. Raises
    ValueError for a task that is no toy."""
    if not toys.owns(env_id):
        raise ValueError(f"trajectories are drawn for {', '.join(toys.TOYS)}, not {env_id}")
    toy = toys.TOYS[env_id]
    episodes = toys.rollout(
        toy,
        toys.starts(toy, episode_seeds(seed, num_episodes)),
        lambda obs, _: act(obs.astype(np.float32)),
        toy.max_steps,
    )
    positions = toy.positions(episodes.states)
    for path, goal in zip(positions.swapaxes(0, 1), episodes.goals, strict=True):
        axis.plot(*path.T, color=GOAL_COLORS[goal], lw=0.8, alpha=0.5)
    axis.plot(*positions[0].T, color="black", ls="", marker=".", markersize=3, zorder=3)
    fractions = [(episodes.goals == k).mean() for k in range(len(toy.rewards))]
    _draw_goals(axis, [f"{fraction:.0%}" for fraction in fractions])


def toy_frame(env_id: str, positions: np.ndarray) -> np.ndarray:
    """A picture (480, 480, 3) of a toy and the positions (n, 2) passed so far."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = _figure(4.8, 4.8, dpi=100)
    canvas = FigureCanvasAgg(figure)
    axis = figure.subplots()
    _draw_goals(axis, toys.TOYS[env_id].rewards)
    axis.plot(*positions.T, color="black", marker="o", markevery=[-1])
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _draw_goals(axis, labels) -> None:
    from matplotlib.patches import Circle

    box = {"boxstyle": "round", "facecolor": "white", "alpha": 0.7, "lw": 0}
    for goal, color, label in zip(multigoal.GOALS, GOAL_COLORS, labels, strict=False):
        radius = multigoal.GOAL_RADIUS
        axis.add_patch(Circle(goal, radius, facecolor=color, alpha=0.25, lw=0))
        axis.add_patch(Circle(goal, radius, fill=False, edgecolor=color, lw=1.5))
        axis.annotate(label, goal, ha="center", va="center", weight="bold", bbox=box, zorder=4)
    axis.set(xlim=(-1.02, 1.02), ylim=(-1.02, 1.02), aspect="equal", xticks=[], yticks=[])


def _figure(width: float, height: float, dpi: int = 120):
    """An empty figure of so many inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=dpi, layout="constrained")


def _save(figure, path) -> None:
    with replacing(path) as temporary:
        figure.savefig(temporary)


# ---- video ---------------------------------------------------------------------------------------


def check_video(path) -> None:
    """Raises ValueError where `record_video` could not write: another suffix than .gif or .mp4, no
    encoder for .mp4, no such folder."""
    path = Path(path)
    if path.suffix not in (".gif", ".mp4"):
        raise ValueError(f"video {path}: its suffix must be .gif or .mp4")
    if path.suffix == ".mp4" and importlib.util.find_spec("imageio_ffmpeg") is None:
        raise ValueError(f"video {path}: .mp4 needs `pip install imageio-ffmpeg`, or choose .gif")
    if not path.parent.is_dir():
        raise ValueError(f"video {path}: there is no folder {path.parent}; make it first")


def record_video(env_id: str, act, path, seed: int, fps: float | None = None) -> None:
    """One episode of `act` in real time, to .gif or .mp4. `fps`: frames per second of the file, at
    most the task's own steps per second; None: at most 25. Raises ValueError where `check_video`
    does, or if the task cannot be drawn."""
    check_video(path)
    path = Path(path)
    frames, fps = _film(env_id, act, path, seed, fps)
    with replacing(path) as temporary:
        if path.suffix == ".gif":
            _write_gif(frames, temporary, fps)
        else:
            import imageio

            imageio.mimwrite(temporary, frames, fps=fps)


def _film(env_id: str, act, path: Path, seed: int, fps: float | None) -> tuple[list, float]:
    """The frames (height, width, 3) of an episode, and how many of them make a second."""
    obs_dim = task_dims(env_id)[0]
    frames = []
    with contextlib.closing(make_env(env_id, render_mode="rgb_array")) as env:
        steps_per_second = env.metadata.get("render_fps", MAX_FPS)
        wanted = fps or min(MAX_FPS, steps_per_second)
        every = max(1, round(steps_per_second / wanted))
        obs, _ = env.reset(seed=episode_seeds(seed, 1)[0])
        over = False
        step = 0
        while not over:
            if step % every == 0:
                frames.append(_render(env, env_id, path))
            action = act(np.asarray(obs, dtype=np.float32).reshape(1, obs_dim))[0]
            obs, _, terminated, truncated, _ = env.step(action)
            over = terminated or truncated
            step += 1
        frames.append(_render(env, env_id, path))
    return frames, steps_per_second / every


def _render(env, env_id: str, path: Path) -> np.ndarray:
    try:
        return env.render()
    except Exception as error:  # each graphics library has its own kinds
        raise ValueError(f"video {path}: {env_id} cannot be drawn here ({error})") from error


def _write_gif(frames: list, path: Path, fps: float) -> None:
    from PIL import Image

    palette = Image.fromarray(frames[0]).quantize(128)  # one for all: a far smaller file
    first, *others = [
        Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE)
        for frame in frames
    ]
    first.save(path, save_all=True, append_images=others, duration=1000 / fps, loop=0)
