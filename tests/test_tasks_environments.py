"""An environment of people's own that fails: one line that names it, what it did, the remedy."""

import sys
import warnings

import gymnasium
import numpy as np
import pytest

import evaluate
import gtp_bc
import offline_tasks
from offline_tasks import registry, videos

ID = "Faulty-v0"
REMEDY = (
    "mend the environment (what a run has saved by then is kept), or train with --dataset-path "
    "alone and evaluate later"
)


class Faulty(gymnasium.Env):
    """Three steps with a reward of 1; a test puts other answers in the place of some."""

    observation_space = gymnasium.spaces.Box(-1, 1, (3,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    metadata = {"render_modes": ["rgb_array"], "render_fps": None}  # noqa: RUF012
    render_mode = "rgb_array"

    def __init__(self, render_mode=None):
        self.count = 0

    def reset(self, *, seed=None, options=None):
        self.count = 0
        return np.zeros(3), {}

    def step(self, action):
        self.count += 1
        return np.zeros(3), 1.0, self.count == 3, False, {}

    def render(self):
        return np.zeros((4, 4, 3), np.uint8)


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """Without a renderer, which would stay chosen for all tests after."""
    monkeypatch.setattr(registry, "_choose_renderer", lambda: None)
    gymnasium.register(ID, entry_point=Faulty, max_episode_steps=5)
    yield
    del gymnasium.registry[ID]


def still(obs):
    return np.zeros((len(obs), 2))


def raising(error):
    def call(*args, **kwargs):
        raise error

    return call


def giving(*answer):
    return lambda self, *args, **kwargs: answer


OBS = np.zeros(3)
NAN = np.array([0, np.nan, 0])
FAULTS = {  # the method, what stands in its place, what is said
    "error": ("step", raising(RuntimeError("no\nlicence")), "step raised RuntimeError: no licence"),
    "value": ("step", raising(ValueError("bad")), "step raised ValueError: bad"),
    "silent": ("step", raising(KeyError()), "step raised KeyError"),
    "exit": ("step", raising(SystemExit(3)), "step raised SystemExit: 3"),
    "reset": ("reset", raising(RuntimeError("bad")), "reset raised RuntimeError: bad"),
    "reset exit": ("reset", raising(SystemExit()), "reset raised SystemExit"),
    "close": ("close", raising(OSError("busy")), "close raised OSError: busy"),
    "none": ("step", giving(OBS, None, False, False, {}), "step gave the reward None"),
    "nan": ("step", giving(OBS, np.nan, False, False, {}), "step gave the reward nan, where a fin"),
    "inf": ("step", giving(OBS, np.inf, True, False, {}), "step gave the reward inf, where a fini"),
    "two": ("step", giving(OBS, np.ones(2), False, False, {}), "gave the reward array([1., 1.]), "),
    "text": ("step", giving(OBS, "much", False, False, {}), "step gave the reward 'much', where"),
    "four": (
        "step",
        giving(OBS, 1.0, False, {}),
        "(expected 5, got 4) (return obs, reward, terminated, truncated, info)",
    ),
    "array": ("step", giving(OBS, 1.0, OBS, False, {}), "step raised ValueError: The truth value"),
    "nan obs": ("step", giving(NAN, 1.0, False, False, {}), "step gave an observation with NaN or"),
    "nan first": ("reset", giving(NAN, {}), "reset gave an observation with NaN or infinity"),
    "large": ("reset", giving(OBS + 1e39, {}), "reset gave an observation with NaN or infinity"),
    "shape": (
        "step",
        giving(np.zeros(2), 1.0, False, False, {}),
        "step gave the observation array([0., 0.]) of shape (2,), where (3,) is declared",
    ),
    "no obs": ("reset", giving({"a": 1}, {}), "reset gave the observation {'a': 1}, where (3,) is"),
    "old reset": ("reset", lambda self, **options: OBS, "not (obs, info)"),
    "seedless": ("reset", lambda self: (OBS, {}), "(it needs the parameters seed and options)"),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("call", ["play", "evaluate", "record_video"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_line_with_the_remedy(fault, call, tmp_path, monkeypatch):
    method, answer, said = FAULTS[fault]
    monkeypatch.setattr(Faulty, method, answer)
    with pytest.raises(ValueError, match=ID) as error:
        if call == "record_video":
            offline_tasks.record_video(ID, still, tmp_path / "a.gif", seed=0)
        else:
            getattr(offline_tasks, call)(ID, still, 2, 0)
    line = str(error.value)
    assert line.startswith(f"env id {ID!r}: its ") and line.endswith(f"; {REMEDY}")
    assert said in line and "\n" not in line and "policy" not in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("reward", [np.array([0.5]), np.array([[0.5]]), np.float32(0.5)])
def test_a_reward_may_be_in_an_array_of_one(reward, monkeypatch):
    monkeypatch.setattr(Faulty, "step", giving(OBS, reward, False, False, None))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        episodes = offline_tasks.play(ID, still, 2, 0)
    assert episodes["returns"].tolist() == [2.5, 2.5] and episodes["lengths"].tolist() == [5, 5]


def test_what_the_policy_does_not_see_does_not_matter(monkeypatch):
    """The observation after the last step."""
    monkeypatch.setattr(Faulty, "step", giving(NAN, 1.0, True, False, {}))
    assert offline_tasks.evaluate(ID, still, 2, 0)["episodic_return"] == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_ctrl_c_and_a_full_memory_pass(error, monkeypatch):
    """Also where closing fails then."""
    monkeypatch.setattr(Faulty, "step", raising(error))
    monkeypatch.setattr(Faulty, "close", lambda self: self.count and raising(OSError("busy"))())
    with pytest.raises(error):
        offline_tasks.play(ID, still, 2, 0)


def test_closing_does_not_hide_what_went_wrong_before(monkeypatch):
    closed = []

    def close(self):
        closed.append(self)
        if self.count:
            raise OSError("busy")

    def step(self, action):
        self.count += 1
        raise RuntimeError("first")

    monkeypatch.setattr(Faulty, "step", step)
    monkeypatch.setattr(Faulty, "close", close)
    with pytest.raises(ValueError, match="step raised RuntimeError: first"):
        offline_tasks.play(ID, still, 3, 0)
    assert len(closed) == 4  # that of task_dims, and three


def test_one_that_leaves_while_it_is_built_is_named(monkeypatch):
    monkeypatch.setattr(Faulty, "__init__", raising(SystemExit("no licence")))
    with pytest.raises(ValueError, match="'Faulty-v0' cannot be built: no licence"):
        offline_tasks.task_dims(ID)


def test_evaluate_py_says_it_in_a_line(small, dataset, monkeypatch, capsys):
    args = small(script=gtp_bc, num_updates=1)
    gtp_bc.train(args)
    capsys.readouterr()
    monkeypatch.setattr(Faulty, "step", giving(OBS, np.nan, True, False, {}))
    monkeypatch.setattr(sys, "argv", ["evaluate.py", args.run_dir, "--env-id", ID])
    assert evaluate.main() == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: env id {ID!r}: its step gave the reward nan")


# ---- frames per second ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fps", "expected"),
    [(None, 25), (0, 25), (-3, 25), ("30", 25), (np.nan, 25), (np.int64(10), 10), (12.5, 12.5)],
)
def test_frames_per_second_that_are_no_number_are_the_default(fps, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(Faulty, "metadata", {"render_modes": ["rgb_array"], "render_fps": fps})
    found = videos._film(ID, still, tmp_path / "a.gif", 0, None)
    assert len(found[0]) == 4 and found[1] == expected
    monkeypatch.setattr(Faulty, "metadata", {"render_modes": ["rgb_array"]})
    offline_tasks.record_video(ID, still, tmp_path / "a.gif", seed=0)
    assert (tmp_path / "a.gif").stat().st_size > 0
