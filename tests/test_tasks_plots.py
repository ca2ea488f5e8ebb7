"""offline_tasks.plots: learning curves, trajectories, videos."""

import numpy as np
import pytest

import offline_tasks
from offline_tasks import multigoal

MULTIGOAL = list(multigoal.TASKS)


PNG = b"\x89PNG\r\n\x1a\n"


def evaluation(update, **values):
    keys = ["energy_score", "energy_score_by_steps", "normalized_score", "normalized_score_std"]
    keys += ["episodic_return", "episodic_length", "goal_fractions"]
    return {"update": update} | dict.fromkeys(keys) | values


@pytest.mark.parametrize(
    "evaluations",
    [
        [],
        [evaluation(10)],
        [evaluation(10, episodic_return=-3.0), evaluation(20, episodic_return=-2.0)],
        [evaluation(10, energy_score=0.2, energy_score_by_steps={"1": 0.3, "10": 0.2})],
        [
            evaluation(10, energy_score=0.2, normalized_score=40.0, normalized_score_std=5.0),
            evaluation(20, normalized_score=50.0, normalized_score_std=None),
        ],
    ],
)
def test_learning_curve(evaluations, tmp_path):
    offline_tasks.plot_learning_curve(evaluations, tmp_path / "curve.png", "a title")
    assert (tmp_path / "curve.png").read_bytes().startswith(PNG)
    assert [path.name for path in tmp_path.iterdir()] == ["curve.png"]


@pytest.mark.parametrize("env_id", MULTIGOAL)
def test_trajectories(env_id, tmp_path):
    offline_tasks.plot_trajectories(env_id, np.sign, tmp_path / "t.png", seed=0, num_episodes=20)
    assert (tmp_path / "t.png").read_bytes().startswith(PNG)
    with pytest.raises(ValueError, match="hopper-medium-v2"):
        offline_tasks.plot_trajectories("hopper-medium-v2", np.sign, tmp_path / "u.png", seed=0)


def test_video_of_multigoal(tmp_path):
    from PIL import Image

    offline_tasks.record_video("multigoal-v0", np.sign, tmp_path / "v.gif", seed=0)
    with Image.open(tmp_path / "v.gif") as gif:
        assert gif.n_frames > 2
    with pytest.raises(ValueError, match=r"v\.avi.*\.gif or \.mp4"):
        offline_tasks.record_video("multigoal-v0", np.sign, tmp_path / "v.avi", seed=0)


def test_mp4_without_its_encoder_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"imageio-ffmpeg.*\.gif"):
        offline_tasks.record_video("multigoal-v0", np.sign, tmp_path / "v.mp4", seed=0)
