"""What is said at the end of a run that did not finish."""

import shlex
import sys


def say_end(results: dict) -> None:
    """Prints, of a run's results.json, what diverged or how to go on, with the remedy."""
    run_dir = results["args"]["run_dir"]
    if results["status"] == "diverged":
        names = sorted(results["diverged"])
        where = f"by update {results['update']}; see {run_dir}/results.json"
        print(f"{names} diverged {where}; {_remedy(names)}")
    if results["status"] == "interrupted":
        command = shlex.join(["python", sys.argv[0], "--resume", run_dir])
        print(f"interrupted; go on with: {results['command'] if results['variant'] else command}")


def _remedy(names: list[str]) -> str:
    """What may help, by what diverged: rewards concern the critic alone."""
    of_critic = any("q" in name or "critic" in name or name == "value" for name in names)
    smaller = "--reward-scale or --learning-rate" if of_critic else "--learning-rate"
    return f"try a smaller {smaller}, a --grad-norm, or another --divergence-bound"
