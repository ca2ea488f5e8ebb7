"""Older checkpoints in today's form, for whatever loads a checkpoint."""

import torch


def upgrade(state: dict) -> None:
    """Change the state of a checkpoint of format 1 in place: the optimizers stood beside the
    networks, observations were used as they were, means began at every checkpoint, and no path was
    None."""
    results = state["results"]
    for name, value in results["args"].items():
        results["args"][name] = "" if value is None else value
    optimizers = {}
    for name in ("actor", "critic", "value"):
        if name in state:
            optimizers[name] = state.pop(name)
    weights = {}
    for key, weight in state["nets"].items():
        net, _, name = key.partition(".")
        if net == "value":
            name = f"net.{name}"
        weights[f"{net}.{name}"] = weight
        weights[f"{net}.obs_mean"] = torch.zeros(state["dims"][0])
        weights[f"{net}.obs_std"] = torch.ones(state["dims"][0])
    state["optimizers"] = optimizers
    state["nets"] = weights
    state["sums"] = torch.zeros(())
    state["since"] = results["update"]
    state["device"] = torch.device(results["args"]["device"]).type


def action_units(env_id: str | None) -> dict:
    """What results.json says of the units of actions since they have any: before, all lay in
    [-1, 1], which the environment stretched to its own bounds."""
    bounds = None
    if env_id:
        import offline_tasks

        bounds = offline_tasks.action_bounds(env_id)
    return {
        "action_units": "unit",
        "action_bounds": [-1, 1] if bounds is None else bounds.tolist(),
    }
