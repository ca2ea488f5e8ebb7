"""The README's picture: a toy's data on the left, the trained policy of a run on the right.

python docs/picture.py runs/RUN            # writes docs/pointmaze.png
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
import evaluate  # noqa: E402
import offline_tasks  # noqa: E402


@dataclass
class Options:
    """Draw a toy's data beside the trained policy of a run."""

    run_dir: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_DIR")]
    """A run of any script on a toy."""
    out: Path = ROOT / "docs" / "pointmaze.png"  # the picture
    episodes: int = 200  # on either side


def main():
    """Read the run, play, draw."""
    options = tyro.cli(Options)
    script, state = evaluate.load_run(options.run_dir)
    args = script.saved_args(state)
    act = script.load_policy(options.run_dir)
    seed = args.seed + 100  # of the training's own evaluation
    offline_tasks.plot_data_and_policy(args.env_id, act, options.out, seed, options.episodes)


if __name__ == "__main__":
    main()
