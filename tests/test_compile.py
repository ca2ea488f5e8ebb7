"""--compile and --cuda-graphs give the updates that eager PyTorch gives."""

import functools
import importlib
from dataclasses import replace

import pytest
import torch

import gtp_offline

SCRIPTS = ("gtp_offline", "gtp_bc", "diffusion_ql", "consistency_ac")


def trained(module, dtype, num_updates, device="cpu", compile=False, cuda_graphs=False):
    """The networks' state and the last metrics after updates of a small network on random data."""
    torch.set_default_dtype(dtype)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    try:
        changes = {"hidden_dim": 16, "batch_size": 32, "num_updates": num_updates, "num_steps": 1}
        changes |= {"seed": 7, "compile": compile, "cuda_graphs": cuda_graphs}
        args = replace(module.default_args(dataset_path="none", device=device), **changes)
        generator = torch.Generator(device).manual_seed(0)
        own = {"generator": generator, "device": device, "dtype": dtype}
        data = {name: torch.randn(300, 4, **own) for name in ("observations", "next_observations")}
        data |= {"actions": torch.rand(300, 2, **own) * 2 - 1, "rewards": torch.randn(300, **own)}
        data |= {"terminals": (torch.rand(300, **own) < 0.1).to(dtype)}
        data["rows"] = torch.arange(300, device=device)
        torch.manual_seed(0)
        nets = module.make_networks(args, 4, 2).to(device)
        optimizers = module.make_optimizers(nets, args)
        for cached in ("time_grid", "sampling_times", "vp_schedule"):
            if hasattr(module, cached):
                getattr(module, cached).cache_clear()
        step = module.update_networks
        for k in range(num_updates):
            inputs = module.draw_inputs(k, data, generator, args)
            metrics = {k: v.clone() for k, v in step(nets, optimizers, data, inputs, args).items()}
            if compile and k == 0:  # as in train: Adam's averages begin with the first update
                step = module.compiled_update(data, optimizers, args)
        if compile:
            counters = torch._dynamo.utils.counters
            assert counters["stats"]["unique_graphs"] == 1 and not counters["graph_break"]
            assert not counters["inductor"]["cudagraph_skips"]
            states = [s for adam in optimizers.values() for s in adam.state.values()]
            for tensor in [v for tensors in [data, *states] for v in tensors.values()]:
                assert hasattr(tensor, "_dynamo_static_input_type")  # else a graph copies it
        return nets.state_dict(), metrics
    finally:
        torch.set_default_dtype(torch.float32)


def assert_equal(module, dtype, num_updates, rtol, **other):
    weights, metrics = trained(module, dtype, num_updates, device=other.get("device", "cpu"))
    weights2, metrics2 = trained(module, dtype, num_updates, **other)
    for name, value in (weights | metrics).items():
        assert torch.allclose(value, (weights2 | metrics2)[name], rtol=rtol, atol=rtol * 1e-2), name


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_captured_update_is_the_eager_one(name, monkeypatch):
    """One graph, run by eager PyTorch, in float64 over 200 updates: all stages of N(k)."""
    eager = functools.partial(torch.compile, backend="eager")
    monkeypatch.setattr(torch, "compile", eager)
    assert_equal(importlib.import_module(name), torch.float64, 200, 1e-6, compile=True)


SLOW = pytest.mark.slow
CRITICS = ("gtp_offline", "diffusion_ql", "consistency_ac")


@pytest.mark.parametrize(
    ("name", "dtype", "num_updates", "rtol"),
    [
        ("gtp_bc", torch.float32, 2, 1e-4),  # the fewest kernels to compile
        *(pytest.param(name, torch.float32, 2, 1e-4, marks=SLOW) for name in CRITICS),
        *(pytest.param(name, torch.float64, 200, 1e-6, marks=SLOW) for name in SCRIPTS),
    ],
)
def test_compiled_updates_equal_eager_ones(name, dtype, num_updates, rtol):
    """With the compiler's own kernels: float32 after one compiled update; float64 over 200."""
    module = importlib.import_module(name)
    assert_equal(module, dtype, num_updates, rtol, compile=True)


def test_the_algebraic_mish_is_mish():
    """Value and derivative of what a CPU computes, in float32 and over the whole range."""
    x = torch.linspace(-80, 80, 100_001).requires_grad_()
    exact = x.detach().double().requires_grad_()
    y, y_exact = gtp_offline.Mish()(x), torch.nn.functional.mish(exact)
    assert torch.allclose(y.double(), y_exact, rtol=1e-6, atol=1e-12)
    (slope,), (slope_exact,) = (
        torch.autograd.grad(v.sum(), u) for v, u in ((y, x), (y_exact, exact))
    )
    assert torch.allclose(slope.double(), slope_exact, rtol=0, atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("graphs", [False, True])
def test_compiled_and_graphed_updates_equal_eager_ones_on_cuda(name, graphs):
    module = importlib.import_module(name)
    given = {"compile": True, "cuda_graphs": graphs, "device": "cuda"}
    assert_equal(module, torch.float64, 50, 1e-6, **given)
