"""What an update needs is where its networks are, and its loop waits for nothing.

PyTorch's `meta` device stands in for a GPU: its tensors have shapes and no values. A tensor left on
the CPU, or a value asked for on the way, fails here as it would slow down or fail there.
"""

import ast
from dataclasses import fields, replace
from typing import Literal, get_args, get_origin

import pytest
import torch
from conftest import ROOT
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import consistency_ac as cac
import diffusion_ql as dql
import gtp_bc
import gtp_offline as gtp

FAMILY = [gtp, gtp_bc, dql, cac]
# Switches that have no part in an update, and bf16: autocast knows no `meta`.
OUTSIDE = {"compile", "cuda_graphs", "tensorboard", "fix_timeouts", "literal", "selection", "bf16"}
OTHERS = {  # changes of numbers, and of several flags at once
    gtp: [
        gtp.LITERAL,
        {"td_target": "policy", "value": "policy", "num_value_samples": 3},
        {"td_target": "policy", "max_q_backup": True},
        {"eta": 0.0},
        {"eta": 0.0, "num_candidates": 4},
        {"grad_norm": 1.0},
    ],
    gtp_bc: [{"grad_norm": 1.0}],
    dql: [{"eta": 0.0}, {"eta": 0.0, "num_candidates": 1}, {"grad_norm": 1.0}],
    cac: [{"eta": 0.0}, {"num_steps": 5}, {"grad_norm": 1.0}],
}


def switches(script):
    """{field: its other values} of the flags of a script that are a choice."""
    found = {}
    usual = script.default_args(dataset_path="x.npz", device="cpu")
    for field in fields(script.Args):
        values = get_args(field.type) if get_origin(field.type) is Literal else ()
        values = (True, False) if field.type is bool else values
        others = [value for value in values if value != getattr(usual, field.name)]
        if others and field.name not in OUTSIDE:
            found[field.name] = others
    return found


def cases():
    """Parameters: each script with each change of its arguments."""
    found = []
    for script in FAMILY:
        changes = [{}, *OTHERS[script]]
        for name, values in switches(script).items():
            changes += [{name: value} for value in values]
        for change in changes:
            words = [script.__name__, *(f"{name}={value}" for name, value in change.items())]
            found.append(pytest.param(script, change, id=" ".join(words)[:80]))
    return found


class OnOneDevice(TorchDispatchMode):
    """Refuses whatever touches a tensor elsewhere than on `meta`, but for Adam's count of steps,
    which its unfused form, the only one for `meta`, keeps on the CPU."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **kwargs or {})
        for leaf in tree_leaves((args, kwargs, result)):
            if isinstance(leaf, torch.Tensor) and leaf.device.type != "meta":
                assert leaf.shape == (), f"{function} on {leaf.device}"
        return result


@pytest.fixture
def unfused(monkeypatch):
    """Adam without fused kernels, of which `meta` has none."""
    original = torch.optim.Adam

    def adam(parameters, lr, fused):
        return original(parameters, lr=lr, fused=not fused)

    monkeypatch.setattr(torch.optim, "Adam", adam)


def arguments(script, **changes):
    usual = script.default_args(dataset_path="x.npz", device="cpu")
    small = {"hidden_dim": 8, "batch_size": 6, "num_steps": 2}
    return replace(usual, **small | changes, device="meta")


def make_data():
    shapes = {"observations": (20, 3), "next_observations": (20, 3), "actions": (20, 2)}
    shapes |= {"rewards": (20,), "terminals": (20,)}
    data = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    return data | {"rows": torch.arange(20, device="meta")}


def updated(script, changes, compiling=False):
    """The metrics of the last update on `meta`, where nothing may happen elsewhere."""
    args = arguments(script, **changes)
    nets = script.make_networks(args, 3, 2).to("meta")
    optimizers = script.make_optimizers(nets, args)
    data = make_data()
    with pytest.MonkeyPatch.context() as patch:
        for k in range(2 if compiling else 1):
            inputs = script.draw_inputs(k, data, None, args)  # no generator can be had there
            assert {tensor.device.type for tensor in inputs.values()} == {"meta"}
            with OnOneDevice():
                metrics = script.update_networks(nets, optimizers, data, inputs, args)
            if compiling:  # from the second one on: Adam's averages are there now
                patch.setattr(torch.compiler, "is_compiling", lambda: True)
    return metrics


@pytest.mark.parametrize(("script", "changes"), cases())
def test_an_update_happens_on_one_device(script, changes, unfused):
    metrics = updated(script, changes)
    assert "actor" in metrics
    assert all(metric.is_meta and metric.shape == () for metric in metrics.values())


@pytest.mark.parametrize("script", FAMILY)
def test_a_compiled_update_happens_on_one_device(script, unfused):
    """The steps that it makes instead of backward() and step()."""
    assert updated(script, {}, compiling=True).keys() == updated(script, {}).keys()


@pytest.mark.parametrize("name", ["noise", "time", "network", "value"])
def test_a_tensor_left_on_the_cpu_is_found(name, unfused, monkeypatch):
    """What these tests are for: each of these faults fails one."""
    original = gtp.actor_loss

    def faulty(nets, obs, actions, noise, t, u, s, weights, args):
        if name == "noise":
            noise = torch.zeros(noise.shape)
        if name == "time":
            t = torch.ones(t.shape)
        if name == "network":
            nets = {"actor": nets["actor"], "actor_ema": gtp.make_networks(args, 3, 2)["actor_ema"]}
        if name == "value":
            weights = weights * weights.mean().item()
        return original(nets, obs, actions, noise, t, u, s, weights, args)

    monkeypatch.setattr(gtp, "actor_loss", faulty)
    with pytest.raises((AssertionError, RuntimeError)):
        updated(gtp, {})


def cpu(tensor):
    """A stand-in for Tensor.cpu, which `meta` cannot do: zeros of the same shape."""
    return torch.zeros(tensor.shape, dtype=tensor.dtype)


@pytest.mark.parametrize("script", FAMILY)
@pytest.mark.parametrize("candidates", [1, 4])
def test_acting_happens_on_one_device_but_for_the_choice(script, candidates, monkeypatch):
    """Sampler and candidates; noise is drawn on the CPU, and the choice falls there."""
    monkeypatch.setattr(torch.Tensor, "cpu", cpu)
    chosen = {} if script is gtp_bc else {"num_candidates": candidates}
    args = arguments(script, **chosen)
    nets = script.make_networks(args, 3, 2).to("meta")
    assert script.make_act(nets, args, 0)(torch.zeros(5, 3).numpy()).shape == (5, 2)
    if script is not gtp_bc:
        values = {script.policy_value, getattr(script, "state_value", script.policy_value)}
        for value in values:
            found = value(nets, replace(args, eta=1.0))
            assert found is None or found(torch.zeros(5, 3).numpy()).shape == (5,)


@pytest.mark.parametrize("script", FAMILY)
def test_the_energy_score_is_computed_on_one_device(script):
    args = arguments(script)
    nets = script.make_networks(args, 3, 2).to("meta")
    obs, actions = torch.empty(7, 3, device="meta"), torch.empty(7, 2, device="meta")
    noise = torch.empty(16, 7, nets["actor"].noise_dim, device="meta")
    with OnOneDevice():
        samples = script.policy_samples(nets, obs, noise, 2, args)
        score = script.energy_score(samples, actions)
    assert samples.shape == (16, 7, 2) and score.is_meta


# ---- the loop does not wait --------------------------------------------------------------------

WAITS = {"item", "cpu", "numpy", "tolist", "float"}  # calls that copy a tensor to the host
DUE = {"log_due", "save_due", "evaluation_due"}  # what the loop may wait for


def called(node):
    """The names that are called in a node, of functions and of methods."""
    calls = [part.func for part in ast.walk(node) if isinstance(part, ast.Call)]
    return {getattr(function, "id", getattr(function, "attr", "")) for function in calls}


def waits_of_updates(text):
    """Calls of WAITS in what update_networks and draw_inputs call, at whatever depth."""
    definitions = {}
    for node in ast.parse(text).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            definitions[node.name] = node
    networks = {name for name, node in definitions.items() if isinstance(node, ast.ClassDef)}
    reached = {"update_networks", "draw_inputs", *networks}
    waiting = set(reached)
    while waiting:
        near = called(definitions[waiting.pop()]) & definitions.keys() - reached
        reached |= near
        waiting |= near
    return {(name, wait) for name in reached for wait in called(definitions[name]) & WAITS}


def waits_of_the_loop(text):
    """Calls of WAITS in the loop of train, but for what an interval's end asks for."""
    functions = {node.name: node for node in ast.parse(text).body if hasattr(node, "name")}
    (loop,) = [node for node in ast.walk(functions["train"]) if isinstance(node, ast.For)]
    found = set()
    waiting = list(loop.body)
    while waiting:
        node = waiting.pop()
        names = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
        if isinstance(node, ast.If) and names & DUE:
            continue
        found |= called(node) & WAITS
    return found


TEXTS = {script: (ROOT / f"{script.__name__}.py").read_text() for script in FAMILY}


@pytest.mark.parametrize("script", FAMILY)
def test_no_update_waits_for_a_value(script):
    assert waits_of_updates(TEXTS[script]) == set()
    assert waits_of_the_loop(TEXTS[script]) == set()


FAULTS = {  # a line of gtp_offline.py, and the same with a wait
    "    return weights / weights.mean()\n": "    return weights / weights.mean().item()\n",
    "        variance = t**2 + SIGMA_DATA**2\n": "        variance = t.cpu() ** 2\n",
    '    rows = data["rows"][inputs["rows"]]\n': '    rows = inputs["rows"].tolist()\n',
    '            results["update"] = update\n': '            results["loss"] = float(sums[0])\n',
}


@pytest.mark.parametrize("line", FAULTS)
def test_a_wait_is_found(line):
    assert TEXTS[gtp].count(line) == 1
    faulty = TEXTS[gtp].replace(line, FAULTS[line])
    assert waits_of_updates(faulty) or waits_of_the_loop(faulty)
