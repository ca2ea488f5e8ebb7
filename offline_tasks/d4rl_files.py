"""D4RL's tasks without their physics: dimensions, scores, dataset files.

A file is fetched once, from the first of DATASET_URLS that serves it, and is used only if its size
and SHA-256 are the published ones.
"""

import contextlib
import http.client
import os
import threading
import urllib.request
from pathlib import Path

import numpy as np

from offline_tasks.arrays import read_file
from offline_tasks.files import data_folder, one_at_a_time, sha256_of, writing_data

LOCOMOTION = {"halfcheetah": (17, 6), "hopper": (11, 3), "walker2d": (17, 6)}  # obs, action dims
LEVELS = ("medium", "medium-replay", "medium-expert")
ANTMAZES = (
    "umaze",
    "umaze-diverse",
    "medium-play",
    "medium-diverse",
    "large-play",
    "large-diverse",
)
ANT_DIMS = (29, 8)

# The scores that count as 0 and 100, as in D4RL's d4rl/infos.py.
REFERENCE_SCORES = {
    "halfcheetah": (-280.178953, 12135.0),
    "hopper": (-20.272305, 3234.3),
    "walker2d": (1.629008, 4592.3),
    "antmaze": (0.0, 1.0),
    "pen": (96.262799, 3076.8331017826877),
    "kitchen": (0.0, 4.0),
}

# Metres in an AntMaze step of 0.1 s. Trained ants reach 0.4, random full torques 0.3; the next
# episode begins some metres away.
MAX_ANT_STEP = 1.0

# A mirror comes first: D4RL's own host was down for weeks.
DATASET_URLS = [
    "https://huggingface.co/datasets/imone/D4RL/resolve/main/{file}",
    "http://rail.eecs.berkeley.edu/datasets/offline_rl/{path}",
]
CONNECT_TIMEOUT = 10.0  # seconds, for each of the two

# Bytes and SHA-256 as published by TensorFlow Datasets.
LOCOMOTION_FILES = """\
halfcheetah_medium 237727262 41324e8487a9556d8cfa4538827f8937f4d63dae3030825ebc9f3a726ed08ca0
halfcheetah_medium_replay 59448533 48d494a4770c11f48260736dec090b78bdca8375647ed4d24bfa5b6610c7f683
halfcheetah_medium_expert 474567252 015db75dae5bbe8e94029b71fa0bafc2073365df0c94744e71031189f3f79c06
hopper_medium 152756557 5bdf1bc4a713c82941de44633df669b36c89850b652a25985166796d25cf71a0
hopper_medium_replay 75854457 e121c5f7c9857a307baa9edc6a2c3b48e85fedb9ac316ecddd0f48ca7ef4e39b
hopper_medium_expert 304537315 9d51ad87f8c905be3880d84c6140bcdb7fbf39a19e046a237f238ba34fec9e26
walker2d_medium 232254996 cf00f43add04c17fdfc2958dd581dea0851b2e5bedbe6fda073758a8f841aeda
walker2d_medium_replay 86323963 e75de96a4f77acf7d4e0d6fdf0d7ccb177c26c44bb4388e4fd99f543ccfa18db
walker2d_medium_expert 462197079 6b8d7f868c45bbaedf460be797fb7271b46dee6ebe45fe7a64319f2005b59a04"""
ANTMAZE_FILES = """\
umaze-v0 232533093 188838316eab5882fa0e1dc8398b5e79772f64f27f0b78d6aebe838402a720c6
umaze-diverse-v0 230854793 4aff7f77b97a8dd62e513cac8f57da7cdb458cfac7ac0cec3081b7765f2da59d
medium-play-v0 231110993 527385c14b87892e8c222c43246546d6cd461fa2a5476d0b3b105ae422b7637c
medium-diverse-v0 231095454 b77764cac90c23e09905539c49ceb3949b49c5b39eb9d51788cc64b9dd0a2c0d
large-play-v0 230880846 e37afef5b80b968b30cad2682f9a93ee1b400e3b58c7a7f45e7d425d03a2b03d
large-diverse-v0 231183929 dda7acbdde1a94a14aa7b06a7e5d8141e60a03ccdc4578bff34b0444425bf11d
umaze-v2 232532949 5ef15257771c50ef4d23c7de001750e96c8bb5d9b6a5e4a821dcfb3065fbd130
umaze-diverse-v2 230854272 c771dd63963cd7d9f55f24a6d809064f6b82250a6aeac4c9d13f9a1d06e8c932
medium-play-v2 231110764 c9fec1c1daad97c71d61bd47f4ccc9f74faa855b8a2d2e8107d5378018827e5b
medium-diverse-v2 231095166 ad9dcbac05d1f8744a7a216083f513662f43f64f28a4a5eb225e9811902dfae7
large-play-v2 230880653 6d353df2457829925d7f9d4b0215587469908bd57478ea76f16417cfa944f471
large-diverse-v2 231183710 84f775eb7956ea9cc766704710dc520a8ab357adc7522ade47f556f0e335e284"""


def _task_dims() -> dict[str, tuple[int, int, int]]:
    """env_id: (obs_dim, action_dim, max_episode_steps)."""
    table = {}
    for robot, dims in LOCOMOTION.items():
        for level in LEVELS:
            table[f"{robot}-{level}-v2"] = (*dims, 1000)
    for maze in ANTMAZES:
        steps = 700 if maze.startswith("umaze") else 1000
        for version in ("v0", "v2"):
            table[f"antmaze-{maze}-{version}"] = (*ANT_DIMS, steps)
    return table


def _antmaze_path(name: str) -> str:
    """D4RL's name of the file of antmaze-{name}."""
    maze, *kind, version = name.split("-")
    sizes = {"umaze": "u-maze", "medium": "big-maze", "large": "hardest-maze"}
    file = (
        f"Ant_maze_{sizes[maze]}_noisy_multistart_{bool(kind)}"
        f"_multigoal_{kind == ['diverse']}_sparse"
    )
    if version == "v0":
        return f"ant_maze_new/{file}.hdf5"
    return f"ant_maze_v2/{file}_fixed.hdf5"


def _datasets() -> dict[str, tuple[str, int, str]]:
    """env_id: (path below D4RL's address, bytes, SHA-256)."""
    table = {}
    for line in LOCOMOTION_FILES.split("\n"):
        name, size, sha256 = line.split()
        env_id = f"{name.replace('_', '-')}-v2"
        table[env_id] = (f"gym_mujoco_v2/{name}-v2.hdf5", int(size), sha256)
    for line in ANTMAZE_FILES.split("\n"):
        name, size, sha256 = line.split()
        table[f"antmaze-{name}"] = (_antmaze_path(name), int(size), sha256)
    return table


TASK_DIMS = _task_dims()
DATASETS = _datasets()


def owns(env_id: str) -> bool:
    """Whether it is the id of a D4RL task that can be built here."""
    return env_id in TASK_DIMS


def task_dims(env_id: str) -> tuple[int, int, int]:
    """(obs_dim, action_dim, max_episode_steps)."""
    return TASK_DIMS[env_id]


def make_env(env_id: str, render_mode: str | None = None):
    """The environment in D4RL's physics, with its step limit."""
    from gymnasium.wrappers import TimeLimit

    from offline_tasks import d4rl

    return TimeLimit(d4rl.make_env(env_id, render_mode), TASK_DIMS[env_id][2])


def action_bounds(env_id: str) -> None:
    """None: the environment takes [-1, 1]."""


def read_arrays(env_id: str, path, d4rl_semantics: bool = False) -> dict:
    """The arrays of a dataset file, not yet checked."""
    return read_file(path, d4rl_semantics)


def normalized_score(env_id: str, returns: np.ndarray) -> np.ndarray | None:
    """D4RL's 100 (return - min) / (max - min), elementwise; None for other tasks than D4RL's."""
    family = env_id.split("-")[0]
    if family not in REFERENCE_SCORES:
        return None
    low, high = REFERENCE_SCORES[family]
    return 100 * (returns - low) / (high - low)


def fix_timeouts(data: dict) -> dict:
    """Drops the transitions of antmaze-v0 whose position (the first two observations) jumps further
    than an ant can in a step: there a new episode begins without a timeout (D4RL issues 77, 146).
    `data` holds `observations, next_observations, terminals` (N, ...) and more of length N."""
    jump = np.linalg.norm(data["next_observations"][:, :2] - data["observations"][:, :2], axis=1)
    # After a terminal transition the next observation is not used, so a jump there does no harm.
    keep = (jump <= MAX_ANT_STEP) | (data["terminals"].reshape(-1) > 0)
    return {key: value[keep] for key, value in data.items()}


# ---- download ------------------------------------------------------------------------------------


def dataset_file(env_id: str) -> Path:
    """The task's file, downloaded if absent, verified. Raises ValueError if it cannot be had or is
    not D4RL's (then it is kept as .bad)."""
    path = data_folder() / DATASETS[env_id][0].split("/")[-1]
    with writing_data(path.parent):
        if not path.exists():
            _download(env_id, path)
        wrong = _difference(env_id, path)
        if wrong is None:
            return path
        bad = _set_aside(path, path)
    raise ValueError(
        f"dataset file {path} is not D4RL's: {wrong}; it was kept as {bad.name}. "
        "Run again to download it afresh, or pass --dataset-path FILE"
    )


def _difference(env_id: str, file: Path) -> str | None:
    """What of a file is not as published, if anything (about a second)."""
    _, size, sha256 = DATASETS[env_id]
    if file.stat().st_size != size:
        return f"{file.stat().st_size} bytes instead of {size}"
    found = sha256_of(file)
    if found != sha256:
        return f"SHA-256 {found} instead of {sha256}"
    return None


def _set_aside(file: Path, path: Path) -> Path:
    """Renames a wrong file to `path` with .bad at the end."""
    bad = path.with_name(path.name + ".bad")
    with contextlib.suppress(FileNotFoundError):  # another process was faster
        os.replace(file, bad)
    return bad


def _download(env_id: str, path: Path) -> None:
    """Fetches a file, one process at a time. Raises ValueError naming every address tried."""
    with one_at_a_time(path):
        failures = _try_each_url(env_id, path)
    if not path.exists():
        raise ValueError(
            f"dataset of {env_id} could not be downloaded, tried {' and '.join(failures)}: check "
            f"the network and run again, put the file at {path}, or pass --dataset-path FILE"
        )


def _try_each_url(env_id: str, path: Path) -> list[str]:
    """Fetches from one address after the other, until there is a right file at `path`; returns
    what went wrong with each before."""
    remote, size, _ = DATASETS[env_id]
    part = path.with_name(path.name + ".part")
    failures = []
    for template in DATASET_URLS:
        if path.exists():  # also: another process's work
            break
        url = template.format(file=path.name, path=remote)
        try:
            _fetch(url, part, size)
        except (OSError, http.client.HTTPException) as error:
            failures.append(f"{url} ({error})")
            if getattr(error, "code", None) == 416:  # nothing can follow what is there
                part.unlink(missing_ok=True)
            continue
        wrong = _difference(env_id, part)
        if wrong is None:
            os.replace(part, path)
        else:
            bad = _set_aside(part, path)
            failures.append(f"{url} ({wrong}, kept as {bad.name})")
    return failures


def _fetch(url: str, part: Path, size: int) -> None:
    """Downloads to `part`, continuing what is already there. Raises OSError if not complete."""
    import tqdm

    start = part.stat().st_size if part.exists() else 0
    if start == size:  # the last process stopped just before renaming it
        return
    with _open(url, start) as response:
        if response.status != 206:  # the server knows no ranges: all of it follows
            start = 0
        length = response.headers["Content-Length"]
        if length is not None and start + int(length) != size:
            raise OSError(f"offers {start + int(length)} bytes instead of {size}")
        bar = tqdm.tqdm(desc=part.stem, total=size, initial=start, unit="B", unit_scale=True)
        with part.open("ab" if start else "wb") as file, bar:
            while True:
                chunk = response.read(1 << 18)
                if not chunk:
                    break
                file.write(chunk)
                bar.update(len(chunk))
    if part.stat().st_size != size:
        raise OSError(f"connection lost after {part.stat().st_size} of {size} bytes")


def _open(url: str, start: int):
    """`urlopen` from byte `start` that answers within about CONNECT_TIMEOUT. Its own timeout is for
    each of a host's addresses and leaves out the name look-up, hence the thread."""
    request = urllib.request.Request(url, headers={"User-Agent": "offline_tasks"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    answers = []

    def ask():
        try:
            answers.append(urllib.request.urlopen(request, timeout=CONNECT_TIMEOUT))
        except Exception as error:
            answers.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(1.1 * CONNECT_TIMEOUT)
    if not answers:
        raise TimeoutError(f"no answer within {CONNECT_TIMEOUT:g} s")
    if isinstance(answers[0], Exception):
        raise answers[0]
    return answers[0]
