"""A trained run again: other steps, candidates or seeds, more episodes, every score, a video.

    python evaluate.py runs/RUN                                   # its last evaluation again
    python evaluate.py runs/RUN --num-steps 2 --num-eval-episodes 100 --out scores.json
    python evaluate.py runs/RUN --video episode.gif

For runs of gtp_offline.py, gtp_bc.py, diffusion_ql.py and consistency_ac.py; RUN may also be a
checkpoint file. What is not given is the run's own, also its device. The energy score is of the
rows that the run held out. Exit code: 2 for a wrong argument, 1 for what cannot be read or done.
"""

import contextlib
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from signal import SIGINT
from typing import Annotated

import numpy as np
import torch
import tyro

import consistency_ac
import diffusion_ql
import gtp_bc
import gtp_offline
import offline_tasks
from gtp_offline import ArgumentError, InputError

SCRIPTS = {
    "gtp_offline": gtp_offline,
    "gtp_bc": gtp_bc,
    "diffusion_ql": diffusion_ql,
    "consistency_ac": consistency_ac,
}
ARGUMENT_ERRORS = tuple(script.ArgumentError for script in SCRIPTS.values())


def own(kind, metavar):
    """A flag, of a type, that stands for the run's own value where it is not given."""
    hint = "(default: the run's)"
    return tyro.conf.arg(constructor=kind, metavar=metavar, help_behavior_hint=hint)


def file(metavar):
    """A file that is written only where it is named."""
    return tyro.conf.arg(constructor=Path, metavar=metavar, help_behavior_hint="")


@dataclass
class Flags:
    """Evaluate a trained run again. What is not given is the run's own."""

    run_dir: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_DIR")]
    """A run directory, or a checkpoint in it."""
    num_steps: Annotated[int | None, own(int, "K")] = None  # steps of the sampler, K or T
    num_candidates: Annotated[int | None, own(int, "N")] = None  # actions to choose from by Q
    num_eval_episodes: Annotated[int | None, own(int, "N")] = None  # episodes to play
    seed: Annotated[int | None, own(int, "N")] = None  # of the episodes and of the policy's noise
    env_id: Annotated[str | None, own(str, "ID")] = None  # the task to play
    dataset_path: Annotated[str | None, own(str, "FILE")] = None  # the dataset, if it has moved
    device: Annotated[str | None, own(str, "D")] = None  # cpu, cuda, cuda:1, ..., auto
    video: Annotated[Path | None, file("FILE.mp4|.gif")] = None  # film an episode
    out: Annotated[Path | None, file("FILE.json")] = None  # what the table shows, and every score


CHANGES = ("num_steps", "num_candidates", "num_eval_episodes", "seed", "env_id", "device")
CHANGES += ("dataset_path",)
OF_EPISODES = ("num_candidates", "num_eval_episodes", "seed", "video")  # of no use without a task


def load_run(path):
    """The script that a run was trained by, and the state in its checkpoint, which is as whole as
    the script's load_checkpoint asks for. InputError for other files, and for ablations."""
    name = algorithm(path)
    if name not in SCRIPTS:
        known = ", ".join(f"{script}.py" for script in SCRIPTS)
        raise InputError(f"{path} is of {name!r}; runs of {known} can be read")
    script = SCRIPTS[name]
    state = script.load_checkpoint(path)
    variant = state["results"].get("variant", "")
    if variant:
        raise InputError(
            f"{path} is of the ablation {variant!r}, which may act otherwise than {name}.py; "
            "its results.json has its evaluations"
        )
    offline_tasks.warn_of_divergence(path, state["results"]["update"])
    return script, state


def algorithm(path):
    """The name in a checkpoint or in the newest readable one of a run directory."""
    files = [path / "checkpoint.pt", path / "checkpoint.previous.pt"] if path.is_dir() else [path]
    for checkpoint in files:
        with contextlib.suppress(Exception):  # of many kinds, for what is no checkpoint
            whole = gtp_offline.whole_archive(checkpoint)
            state = torch.load(whole, map_location="cpu", weights_only=True)
            return str(state["results"]["algorithm"])
    return "gtp_offline"  # its load_checkpoint says what is wrong with the files


def check_files(flags):
    """Raise ArgumentError where a file that was asked for could not be written."""
    if flags.video:
        try:
            offline_tasks.check_video(flags.video)
        except ValueError as error:
            raise ArgumentError(f"--video: {error}") from error
    if not flags.out:
        return
    if flags.out.suffix != ".json" or flags.out.name == "results.json":  # that is the run's
        raise ArgumentError(f"--out {flags.out}: name another file that ends in .json")
    if flags.out.is_dir() or not flags.out.parent.is_dir():
        raise ArgumentError(f"--out {flags.out}: name a file in a folder that exists")
    try:
        offline_tasks.check_folder(flags.out.parent)
    except ValueError as error:
        raise ArgumentError(f"--out {flags.out}: {error}") from error


def changed_args(saved, flags, script, state):
    """The run's arguments with the flags in their place. Raises ArgumentError for a flag that this
    run has no use for, and for a value that it cannot take."""
    given = {name: getattr(flags, name) for name in CHANGES}
    given = {name: value for name, value in given.items() if value is not None}
    candidates = given.get("num_candidates", 1)
    if script is gtp_bc and "num_candidates" in given:
        raise ArgumentError("--num-candidates: gtp_bc.py has no critic to choose by; leave it out")
    if candidates > 1 and not any(name.startswith("critic_target.") for name in state["nets"]):
        raise ArgumentError(
            f"--num-candidates {candidates}: {flags.run_dir} has no critic to choose by; give 1"
        )
    args = replace(saved, **given)
    if script is diffusion_ql and args.num_steps != saved.num_steps:
        raise ArgumentError(
            f"--num-steps {args.num_steps}: the network of {flags.run_dir} denoises in "
            f"{saved.num_steps} steps and in no other number; leave it out"
        )
    args = replace(args, device=script.find_device(args.device), compile=False, track=False)
    # A run that has lost its task by --env-id "" still has its data.
    # What an older run was allowed, it may go on to do.
    path = state["results"]["dataset"]["path"]
    past = {"resume": str(flags.run_dir), "dataset_path": path, "action_units": "auto"}
    script.check_args(replace(args, **past))
    check_task(args.env_id, flags, state["dims"])
    return args


def check_task(env_id, flags, dims):
    """Raise ArgumentError for a task of other shapes than the run's (obs_dim, action_dim), or where
    there is no task for a flag that is about episodes."""
    if not env_id:
        for name in OF_EPISODES:
            if getattr(flags, name) is not None:
                flag = name.replace("_", "-")
                raise ArgumentError(f"--{flag}: {flags.run_dir} has no task; give --env-id too")
        return
    task_dims = offline_tasks.task_dims(env_id)[:2]
    if list(task_dims) != list(dims):
        raise ArgumentError(
            f"--env-id {env_id}: (observations, actions) have {task_dims} columns, "
            f"those of {flags.run_dir} have {tuple(dims)}"
        )


def use_units(nets, env_id, trained_on, run):
    """Let a policy that was trained without a task act in the environment's units. That of another
    task keeps its own; a line on stderr says where they are not the environment's."""
    bounds = offline_tasks.action_bounds(env_id)
    own_bounds = np.reshape(nets["actor"].action_bounds, (2, -1))
    if bounds is None or (bounds == own_bounds).all():
        return
    wanted = f"[{bounds.min():g}, {bounds.max():g}]"
    if trained_on:
        kept = f"its actions stay in [{own_bounds.min():g}, {own_bounds.max():g}]"
        print(f"{run} is of {trained_on}: {kept}; {env_id} takes {wanted}", file=sys.stderr)
        return
    nets["actor"].action_bounds = bounds
    stretched = f"its actions in [-1, 1] are stretched to {wanted} for {env_id}"
    print(f"{run} has no task: {stretched}", file=sys.stderr)


def held_out_rows(saved, script, state):
    """The rows that the run held out of its dataset; InputError where they cannot be had."""
    try:
        with offline_tasks.quiet():  # training has described them
            _, holdout, dataset = script.load_data(saved)
    except (ValueError, OSError) as error:
        raise InputError(str(error).splitlines()[0]) from error
    if dataset["sha256"] != state["results"]["dataset"]["sha256"]:
        raise InputError(f"dataset {dataset['path']} is not the one that the run was trained on")
    if not len(holdout["observations"]):
        raise InputError("the run held out no rows of its dataset")
    return holdout


def energy_score(nets, saved, args, script, state):
    """The energy score of the policy on the held-out rows. Without them None and a line that says
    why, or, where there is no task either, InputError."""
    try:
        here = replace(saved, device=args.device, dataset_path=args.dataset_path)
        holdout = held_out_rows(here, script, state)
    except InputError as error:
        if not args.env_id:
            raise InputError(f"nothing to measure: no task, no energy score: {error}") from error
        print(f"no energy score: {error}", file=sys.stderr)
        return None
    row = script.evaluate(nets, replace(args, env_id=""), holdout, update=0)
    return row["energy_score"]


def play(nets, args, script):
    """Episodes with the seeds of the training's evaluations -> what --out says of them."""
    act = script.make_act(nets, args, args.seed)
    episodes = offline_tasks.play(args.env_id, act, args.num_eval_episodes, args.seed + 100)
    scores = episodes["scores"]
    each = episodes["returns"] if scores is None else scores
    return {
        "normalized_score": None if scores is None else float(scores.mean()),
        "normalized_score_std": None if scores is None else float(scores.std()),
        "episodic_return": float(episodes["returns"].mean()),
        "episodic_length": float(episodes["lengths"].mean()),
        "scores": each.tolist(),
    }


def evaluate(flags) -> dict:
    """What --out receives, of a run with some arguments changed; prints it and films an episode.

    InputError (ArgumentError for a flag), ValueError or OSError for what cannot be read or done.
    """
    check_files(flags)
    script, state = load_run(flags.run_dir)
    saved = script.saved_args(state)
    args = changed_args(saved, flags, script, state)
    torch.set_num_threads(args.num_threads)
    nets = script.load_networks(state, args)
    if args.env_id:
        use_units(nets, args.env_id, saved.env_id, flags.run_dir)
    row = {
        "env_id": args.env_id or None,
        "num_steps": args.num_steps,
        "num_candidates": 1 if script is gtp_bc else args.num_candidates,
        "num_eval_episodes": args.num_eval_episodes,
        "seed": args.seed,
        "normalized_score": None,
        "normalized_score_std": None,
        "episodic_return": None,
        "episodic_length": None,
        "energy_score": energy_score(nets, saved, args, script, state),
        "scores": None,
    }
    if args.env_id:
        row |= play(nets, args, script)
    print(f"{flags.run_dir}: {script.__name__}.py, {state['results']['update']} updates")
    print_table(row)
    if flags.out:
        script.write_json(flags.out, row)
    if flags.video:
        act = script.make_act(nets, args, args.seed)
        offline_tasks.record_video(args.env_id, act, flags.video, args.seed + 100)
    return row


def print_table(row):
    """A line for each thing that is known, less the single scores and what had no part."""
    hidden = ("scores",) if row["env_id"] else ("scores", *OF_EPISODES)
    for name, value in row.items():
        if name not in hidden and value is not None:
            shown = f"{value:.6g}" if isinstance(value, float) else value
            print(f"  {name:<22}{shown}")


def full_memory(error) -> int:
    """The exit code of an error that says that memory is full, in a line; others are raised."""
    if "allocate" not in str(error):
        raise error
    print("error: the memory is full; smaller: --num-steps or other counts", file=sys.stderr)
    return 1


def main() -> int:
    offline_tasks.take_any_letter()
    flags = tyro.cli(Flags)
    try:
        evaluate(flags)
    except (ValueError, OSError, ImportError) as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 2 if isinstance(error, ARGUMENT_ERRORS) else 1
    except (MemoryError, RuntimeError) as error:
        return full_memory(error)
    except KeyboardInterrupt:
        return 128 + SIGINT
    return 0


if __name__ == "__main__":
    sys.exit(main())
