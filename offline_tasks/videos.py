"""Videos: one episode of a policy, to .gif or .mp4."""

import importlib.util
import numbers
from pathlib import Path

import numpy as np

from offline_tasks.environments import Watched, closing
from offline_tasks.files import check_folder, replacing
from offline_tasks.registry import make_env, task_dims
from offline_tasks.rollout import episode_seeds

MAX_FPS = 25  # of a video, unless asked for more


def check_video(path) -> None:
    """Raises ValueError where `record_video` could not write: another suffix than .gif or .mp4, no
    encoder for .mp4, no such folder."""
    path = Path(path)
    if path.suffix not in (".gif", ".mp4"):
        raise ValueError(f"video {path}: its suffix must be .gif or .mp4")
    if path.suffix == ".mp4" and importlib.util.find_spec("imageio_ffmpeg") is None:
        raise ValueError(f"video {path}: .mp4 needs `pip install imageio-ffmpeg`, or choose .gif")
    if path.suffix == ".gif" and importlib.util.find_spec("PIL") is None:
        raise ValueError(f"video {path}: .gif needs `pip install pillow`, or choose .mp4")
    if not path.parent.is_dir():
        raise ValueError(f"video {path}: there is no folder {path.parent}; make it first")
    check_folder(path.parent)


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
    with closing(make_env(env_id, render_mode="rgb_array"), env_id) as env:
        watched = Watched(env, env_id, obs_dim)
        steps_per_second = _steps_per_second(env)
        wanted = fps or min(MAX_FPS, steps_per_second)
        every = max(1, round(steps_per_second / wanted))
        obs = watched.reset(episode_seeds(seed, 1)[0])
        count = 0
        while obs is not None:
            if count % every == 0:
                frames.append(_render(env, env_id, path))
            action = act(obs.reshape(1, obs_dim))[0]
            obs, _, _ = watched.step(action)
            count += 1
        frames.append(_render(env, env_id, path))
    return frames, steps_per_second / every


def _steps_per_second(env) -> float:
    """What the environment says, or MAX_FPS where that is no positive number."""
    fps = (env.metadata or {}).get("render_fps")
    if isinstance(fps, numbers.Real) and 0 < fps < np.inf:
        return float(fps)
    return MAX_FPS


def _render(env, env_id: str, path: Path) -> np.ndarray:
    try:
        frame = env.render()
    except Exception as error:  # each graphics library has its own kinds
        reason = " ".join(str(error).split()) or type(error).__name__
        fault = f"{env_id} cannot be drawn here ({reason})"
        raise ValueError(f"video {path}: {fault}; leave --video out") from error
    picture = isinstance(frame, np.ndarray) and frame.dtype == np.uint8
    if not picture or frame.shape[2:] != (3,):
        gave = f"{frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else type(frame)
        raise ValueError(
            f"video {path}: render() of {env_id} gave {gave}; it must return uint8 arrays "
            "(height, width, 3), or leave --video out"
        )
    return frame


def _write_gif(frames: list, path: Path, fps: float) -> None:
    from PIL import Image

    palette = Image.fromarray(frames[0]).quantize(128)  # one for all: a far smaller file
    first, *others = [
        Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE)
        for frame in frames
    ]
    first.save(path, save_all=True, append_images=others, duration=1000 / fps, loop=0)
