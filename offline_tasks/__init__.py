"""Tasks of offline reinforcement learning: environments, datasets, scores, pictures.

    registry.py          which module an id belongs to, and the calls that depend on it
    toys.py              multigoal.py and pointmaze.py: NumPy, data from a seed
    toy_envs.py          the toys as Gymnasium environments
    d4rl_files.py        D4RL's tasks: dimensions, scores, dataset files
    d4rl.py              D4RL's environments: MuJoCo 2.1.0's physics on the current MuJoCo
    minari.py            datasets of Minari: read here, downloaded by its own package
    ogbench.py           OGBench's single tasks; ogbench_env.py wraps its environments
    gymnasium_tasks.py   any other task registered in Gymnasium, also one's own: module:EnvId
    environments.py      what an environment of other people's does wrong, in a line
    arrays.py            a dataset's arrays, read and checked, the ends of its episodes
    units.py             the units of actions: a file's, an environment's, [-1, 1]
    loading.py           a dataset as the algorithms take it, and what is said about it
    rollout.py           evaluation of a policy in parallel episodes
    plots.py             learning curves, trajectories, maps of values
    videos.py            an episode filmed
    provenance.py        which versions produced a result
    tracking.py          Weights & Biases
    statistics.py        scores over runs and tasks: means, intervals, comparisons
    pages.py             tables and pictures as Markdown and as one HTML file
    reading.py           why a dataset file cannot be read
    endings.py           what is said of a run that did not finish or whose Q cannot be right

A policy is a function `act` from float32 observations (n, obs_dim) to actions (n, action_dim) in
the environment's units. Importing this package imports NumPy alone; Gymnasium, MuJoCo and
matplotlib follow when they are needed.
"""

from offline_tasks.arrays import quiet
from offline_tasks.d4rl_files import (
    DATASETS,
    fix_timeouts,
)
from offline_tasks.endings import largest_rewards, say_end, say_impossible_q
from offline_tasks.files import check_folder, take_any_letter
from offline_tasks.loading import (
    load_dataset,
    load_transitions,
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
from offline_tasks.provenance import check_tensorboard, provenance, since_resumed
from offline_tasks.registry import (
    TASK_DIMS,
    action_bounds,
    benchmark,
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
from offline_tasks.run_folders import (
    check_resumed,
    ended_results,
    warn_of_divergence,
)
from offline_tasks.tracking import (
    check_run,
    tracking,
)
from offline_tasks.videos import (
    check_video,
    record_video,
)

__all__ = [
    "DATASETS",
    "TASK_DIMS",
    "action_bounds",
    "benchmark",
    "check_data",
    "check_env_id",
    "check_folder",
    "check_resumed",
    "check_run",
    "check_tensorboard",
    "check_video",
    "dataset_file",
    "draw_data",
    "draw_trajectories",
    "draw_value",
    "ended_results",
    "episode_seeds",
    "evaluate",
    "fix_timeouts",
    "largest_rewards",
    "load_dataset",
    "load_transitions",
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
    "quiet",
    "record_video",
    "say_end",
    "say_impossible_q",
    "since_resumed",
    "take_any_letter",
    "task_dims",
    "tracking",
    "warn_of_divergence",
]
