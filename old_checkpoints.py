"""Checkpoints of formats 1 and 2 in today's form, for whatever loads a checkpoint."""

import torch


def upgrade(state: dict) -> None:
    """Change a checkpoint's state in place."""
    if state["format"] == 1:
        _from_1_to_2(state)
    _from_2_to_3(state)


def _from_2_to_3(state: dict) -> None:
    """Actions lay in [-1, 1], which the environment stretched to its own bounds."""
    results = state["results"]
    bounds = None
    if results["args"]["env_id"]:
        import offline_tasks

        bounds = offline_tasks.action_bounds(results["args"]["env_id"])
    bounds = [-1, 1] if bounds is None else bounds.tolist()
    results["dataset"] |= {"action_units": "unit", "action_bounds": bounds}


def _from_1_to_2(state: dict) -> None:
    """The optimizers stood beside the networks, observations were used as they were, and means
    began at every checkpoint."""
    results = state["results"]
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
