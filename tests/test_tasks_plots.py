"""offline_tasks.plots and .videos: learning curves, trajectories, values, episodes filmed."""

import numpy as np
import pytest

import offline_tasks
from offline_tasks import toys

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


def quadrant(obs):
    return np.sign(obs[:, :2])


@pytest.mark.parametrize(
    "env_id", ["multigoal-unequal-v0", "pointmaze-umaze-v0", "pointmaze-walls-v0"]
)
def test_trajectories(env_id, tmp_path):
    offline_tasks.plot_trajectories(env_id, quadrant, tmp_path / "t.png", seed=0, num_episodes=20)
    assert (tmp_path / "t.png").read_bytes().startswith(PNG)
    with pytest.raises(ValueError, match="hopper-medium-v2"):
        offline_tasks.plot_trajectories("hopper-medium-v2", quadrant, tmp_path / "u.png", seed=0)


def right(obs):
    return np.tile([1.0, 0.0], (len(obs), 1))


@pytest.mark.parametrize("env_id", ["multigoal-v0", "pointmaze-medium-v0"])
def test_the_pictures_of_a_run(env_id, tmp_path):
    seen = []

    def value(obs):
        seen.append(obs)
        return obs[:, 0]

    offline_tasks.plot_run(tmp_path, env_id, [evaluation(10)], right, 0)
    names = {"learning_curve.png", "trajectories.png"}
    assert {path.name for path in tmp_path.iterdir()} == names
    offline_tasks.plot_run(tmp_path, env_id, [evaluation(10)], right, 0, value=value)
    assert {path.name for path in tmp_path.iterdir()} == names | {"value.png"}
    assert all(path.read_bytes().startswith(PNG) for path in tmp_path.iterdir())
    (obs,) = seen
    assert obs.dtype == np.float32 and obs.shape == (200 * 200, toys.TOYS[env_id].obs_dim)
    low, high = obs.min(0)[:2], obs.max(0)[:2]  # from edge to edge, at rest
    edge = 1.02 if env_id == "multigoal-v0" else 2.0
    np.testing.assert_allclose([*low, *high], [-edge, -edge, edge, edge], atol=0.03)
    assert (obs[:, 2:] == 0).all()


def test_a_picture_that_fails_is_a_line(tmp_path, capsys):
    def fails(obs):
        raise RuntimeError("no display")

    offline_tasks.plot_run(tmp_path, "multigoal-v0", [evaluation(10)], fails, 0)
    assert capsys.readouterr().err == "no pictures: no display\n"
    assert [path.name for path in tmp_path.iterdir()] == ["learning_curve.png"]


@pytest.mark.parametrize("env_id", ["", None, "hopper-medium-v2"])
def test_a_run_on_no_toy_has_a_learning_curve_alone(env_id, tmp_path):
    offline_tasks.plot_run(tmp_path, env_id, [evaluation(10)], right, 0, value=right)
    assert [path.name for path in tmp_path.iterdir()] == ["learning_curve.png"]


def axis():
    from matplotlib.figure import Figure

    return Figure().subplots()


def test_trajectories_lie_over_the_data_of_a_maze():
    drawn = axis()
    offline_tasks.draw_trajectories(drawn, "pointmaze-umaze-v0", right, seed=0, num_episodes=7)
    data, policy, _ = drawn.collections  # the last: the walls
    assert len(data.get_segments()) == 200 and len(policy.get_segments()) == 7
    assert [text.get_text() for text in drawn.texts] == ["start", "0%"]
    toy = toys.TOYS["pointmaze-umaze-v0"]
    first = toys.make_data("pointmaze-umaze-v0")["observations"][:1]
    np.testing.assert_allclose(data.get_segments()[0][0], toy.locate(first)[0])
    ends = [path[np.isfinite(path[:, 0])][-1] for path in policy.get_segments()]
    assert all(3.5 < x < 3.81 for x, _ in ends)  # against the wall on the right
    without = axis()
    offline_tasks.draw_trajectories(without, "multigoal-v0", right, seed=0, num_episodes=7)
    assert len(without.collections) == 1 and len(without.texts) == 4


def test_data_beside_the_policy(tmp_path):
    path = tmp_path / "both.png"
    offline_tasks.plot_data_and_policy("pointmaze-large-v0", right, path, seed=0, num_episodes=5)
    assert path.read_bytes().startswith(PNG)


def test_values_are_drawn_where_they_are():
    """A value that is the row of the maze: the map's first row is its least."""
    toy = toys.TOYS["pointmaze-large-v0"]
    drawn = axis()
    offline_tasks.draw_value(drawn, "pointmaze-large-v0", lambda obs: toy.locate(obs)[:, 1])
    values = drawn.collections[0].get_array()
    assert values.shape == (150, 200)  # 9 rows, 12 columns
    np.testing.assert_allclose(values[:, 0], values[:, -1])
    np.testing.assert_allclose(values[:, 0], 0.06 * np.arange(150) + 0.03, atol=1e-5)
    for bad in (lambda obs: obs[:, :1], lambda obs: 1.0):
        with pytest.raises(ValueError, match="value gave shape"):
            offline_tasks.draw_value(axis(), "pointmaze-large-v0", bad)
    with pytest.raises(ValueError, match="hopper-medium-v2"):
        offline_tasks.draw_value(axis(), "hopper-medium-v2", right)


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


def test_video_of_a_maze(tmp_path):
    from PIL import Image

    offline_tasks.record_video("pointmaze-umaze-v0", right, tmp_path / "v.gif", seed=0, fps=1)
    with Image.open(tmp_path / "v.gif") as gif:
        assert gif.n_frames > 2 and gif.size == (480, 480)


def test_check_video(tmp_path):
    offline_tasks.check_video(tmp_path / "v.gif")
    offline_tasks.check_video("v.gif")
    with pytest.raises(ValueError, match=r"v\.avi.*\.gif or \.mp4"):
        offline_tasks.check_video(tmp_path / "v.avi")
    with pytest.raises(ValueError, match=r"there is no folder .*nowhere"):
        offline_tasks.check_video(tmp_path / "nowhere" / "v.gif")
