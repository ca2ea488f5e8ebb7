"""Tasks of offline reinforcement learning: environments, datasets, scores, pictures.

    registry.py          which module an id belongs to, and the calls that depend on it
    toys.py              multigoal.py and pointmaze.py: NumPy, data from a seed
    toy_envs.py          the toys as Gymnasium environments
    d4rl_files.py        D4RL's tasks: dimensions, scores, dataset files
    d4rl.py              D4RL's environments: MuJoCo 2.1.0's physics on the current MuJoCo
    gymnasium_tasks.py   any other task registered in Gymnasium, also one's own: module:EnvId
    arrays.py            checks of a dataset's arrays, the ends of its episodes
    rollout.py           evaluation of a policy in parallel episodes
    plots.py             learning curves, trajectories, maps of values
    videos.py            an episode filmed
    provenance.py        which versions produced a result

A policy is a function `act` from float32 observations (n, obs_dim) to actions (n, action_dim) in
[-1, 1]. Importing this package imports NumPy alone; Gymnasium, MuJoCo and matplotlib follow when
they are needed.
"""

from offline_tasks.arrays import check_arrays
from offline_tasks.d4rl_files import (
    DATASETS,
    fix_timeouts,
)
from offline_tasks.plots import (
    draw_data,
    draw_trajectories,
    draw_value,
    plot_data_and_policy,
    plot_learning_curve,
    plot_run,
    plot_trajectories,
    plot_value,
)
from offline_tasks.provenance import provenance
from offline_tasks.registry import (
    TASK_DIMS,
    check_data,
    check_env_id,
    dataset_file,
    make_env,
    normalized_score,
    prepare,
    task_dims,
)
from offline_tasks.rollout import (
    episode_seeds,
    evaluate,
    play,
)
from offline_tasks.videos import (
    check_video,
    record_video,
)

__all__ = [
    "DATASETS",
    "TASK_DIMS",
    "check_arrays",
    "check_data",
    "check_env_id",
    "check_video",
    "dataset_file",
    "draw_data",
    "draw_trajectories",
    "draw_value",
    "episode_seeds",
    "evaluate",
    "fix_timeouts",
    "make_env",
    "normalized_score",
    "play",
    "plot_data_and_policy",
    "plot_learning_curve",
    "plot_run",
    "plot_trajectories",
    "plot_value",
    "prepare",
    "provenance",
    "record_video",
    "task_dims",
]
