"""Checkpoints of format 1 in today's form, for whatever loads a checkpoint."""

import re

import torch


def upgrade(state: dict) -> None:
    """Change a checkpoint's state in place: the optimizers stood beside the networks, observations
    were used as they were, and means began at every checkpoint."""
    names = [name for name in ("actor", "critic", "value") if name in state]
    state["optimizers"] = {name: state.pop(name) for name in names}
    weights = {re.sub("^value", "value.net", key): w for key, w in state["nets"].items()}
    for net in {key.split(".")[0] for key in weights}:
        weights[f"{net}.obs_mean"] = torch.zeros(state["dims"][0])
        weights[f"{net}.obs_std"] = torch.ones(state["dims"][0])
    state["nets"] = weights
    state["sums"] = torch.zeros(())
    state["since"] = state["results"]["update"]
    state["device"] = torch.device(state["results"]["args"]["device"]).type
