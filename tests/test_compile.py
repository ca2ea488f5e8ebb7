"""--compile and --cuda-graphs give the updates that eager PyTorch gives."""

import contextlib
import functools
import gc
import importlib
import subprocess
import sys
import weakref
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import ROOT, differences, run_script

import gtp_offline

sys.path.insert(0, str(ROOT / "ablations"))

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
    """One graph, run by eager PyTorch, in float64 over 40 updates: all 8 stages of N(k)."""
    eager = functools.partial(torch.compile, backend="eager")
    monkeypatch.setattr(torch, "compile", eager)
    assert_equal(importlib.import_module(name), torch.float64, 40, 1e-6, compile=True)


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


# ---- a compiler that fails ---------------------------------------------------------------------


def raising(*args, **kwargs):
    raise AssertionError("no such luck\nin the scheduler")


WAYS = {"at once": raising, "when it is called": functools.partial(torch.compile, backend=raising)}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_compiler_that_raises_is_reported_once_and_the_updates_go_on(
    name, way, monkeypatch, capsys
):
    """Without it from then on, each update made once, whatever the compiler raises."""
    script = importlib.import_module(name)
    made = []

    def update(nets, optimizers, data, inputs, args):
        made.append(inputs.item())
        return {"actor": 2 * inputs}

    monkeypatch.setattr(script, "update_networks", update)
    monkeypatch.setattr(torch, "compile", WAYS[way])
    args = script.default_args(dataset_path="x.npz", device="cpu")
    step = script.compiled_update({}, {}, args)
    for k in range(3):
        assert step(None, None, {}, torch.tensor(k), args) == {"actor": 2 * k}
    assert [k for k in made if isinstance(k, int)] == [0, 1, 2]
    began, failed = capsys.readouterr().err.splitlines()
    assert "--no-compile" in began
    assert "--compile failed" in failed and "no such luck in the scheduler" in failed


def test_an_error_of_the_update_itself_ends_the_run(monkeypatch):
    """It is no compiler's: the second time it is not caught."""
    monkeypatch.setattr(torch, "compile", raising)
    monkeypatch.setattr(gtp_offline, "update_networks", raising)
    step = gtp_offline.compiled_update({}, {}, gtp_offline.Args())
    for _ in range(2):
        with pytest.raises(AssertionError, match="no such luck"):
            step()


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_run_whose_compiler_fails_is_the_eager_run(name, small, monkeypatch, capsys):
    """Bit for bit, from the command to the checkpoint."""
    script = importlib.import_module(name)
    monkeypatch.setattr(torch, "compile", raising)
    states = []
    for compile in (False, True):
        args = small(f"compile {compile}", script, compile=compile)
        assert script.train(args)["status"] == "finished"
        states.append(script.load_checkpoint(Path(args.run_dir))["nets"])
    assert differences(*states) == []
    assert capsys.readouterr().err.count("--compile failed") == 1


NO_COMPILER = """
import sys, torch
sys.path.insert(0, {root!r})
import gtp_bc

def update(x):
    return {{"actor": x.square().sum()}}

gtp_bc.update_networks = update
args = gtp_bc.default_args(dataset_path="x.npz", device="cpu")
print(gtp_bc.compiled_update({{}}, {{}}, args)(torch.full((4000,), 2.0)))
"""


def test_a_machine_without_a_compiler_goes_on_without(tmp_path):
    code = NO_COMPILER.format(root=str(ROOT))
    options = run_script("-c", code, folder=tmp_path, capture_output=True)
    options["env"] |= {"CXX": "no-such-compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(**options)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "{'actor': tensor(16000.)}\n"
    (failed,) = [line for line in done.stderr.splitlines() if "--compile failed" in line]
    assert "no-such-compiler" in failed and "Traceback" not in done.stderr


# ---- CUDA --------------------------------------------------------------------------------------


@pytest.fixture
def one_card(monkeypatch):
    """A stand-in for a machine with one GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize(
    ("flags", "fast"),
    [
        ("--device cuda", True),
        ("--device auto", True),
        ("--device cuda:0 --num-updates 20001", True),
        ("--device cuda --num-updates 20000", False),
        ("--device cpu", False),
    ],
)
def test_long_runs_on_a_card_are_compiled_by_default(name, flags, fast, one_card):
    script = importlib.import_module(name)
    words = ["--dataset-path", "x.npz", *flags.split()]
    args = script.parse_args(words)
    assert (args.compile, args.cuda_graphs) == (fast, fast)
    args = script.parse_args([*words, "--no-compile", "--no-cuda-graphs"])
    assert (args.compile, args.cuda_graphs) == (False, False)


@pytest.mark.parametrize("name", SCRIPTS)
def test_an_older_pytorch_does_not_compile_by_default(name, one_card, monkeypatch):
    """Before 2.11 it cannot, so a long run there must not be refused."""
    monkeypatch.setattr(torch, "__version__", torch.torch_version.TorchVersion("2.9.1"))
    args = importlib.import_module(name).default_args(dataset_path="x.npz", device="cuda")
    assert (args.compile, args.cuda_graphs) == (False, False)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_card_that_the_machine_does_not_have_is_refused(name, one_card):
    script = importlib.import_module(name)
    for device in ("cpu", "cuda", "cuda:0"):
        script.check_device(device)
    for device in ("cuda:1", "cuda:99", "cuda:", "gpu", "auto", ""):
        refusal = f"--device {device} is not to be had on this machine; give cpu or cuda:0 or cuda"
        with pytest.raises(script.ArgumentError, match=refusal):
            script.check_device(device)
        args = replace(script.default_args(dataset_path="x.npz", device="cpu"), device=device)
        with pytest.raises(script.ArgumentError, match=refusal):
            script.check_args(args)


@pytest.mark.parametrize("module", ["inference_time", "update_cost"])
def test_a_benchmark_refuses_such_a_card(module, one_card, tmp_path, monkeypatch, capsys):
    script = importlib.import_module(module)
    words = [f"{module}.py", "--device", "cuda:99", "--quick", "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", words)
    assert script.main(script.run, script.Arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "cuda:99 is not to be had" in line and not (tmp_path / "out").exists()


class Policy:
    """In a cycle, as a captured function is: only the garbage collector frees it."""

    def __init__(self):
        self.itself = self


class OnACard:
    """A stand-in for one observation on a GPU."""

    is_cuda = True
    device = "cuda:0"

    def __len__(self):
        return 1


@pytest.mark.parametrize("name", SCRIPTS)
def test_older_policies_are_freed_before_the_next_is_captured(name, monkeypatch):
    """A graph that is freed during a capture ends it, with an error of CUDA."""
    gc.disable()  # it must be asked, not come by itself
    older = weakref.ref(Policy())
    captured = []

    def capture(function, inputs):
        captured.append(older() is None)
        return function

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", capture)
    monkeypatch.setattr(torch.cuda, "device", contextlib.nullcontext)
    obs = OnACard()
    act = importlib.import_module(name).one_graph(lambda obs, noise: noise)
    try:
        assert (act(obs, 3), act(obs, 4)) == (3, 4)
    finally:
        gc.enable()
    assert captured == [True]  # once, not for every action


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("graphs", [False, True])
def test_compiled_and_graphed_updates_equal_eager_ones_on_cuda(name, graphs):
    module = importlib.import_module(name)
    given = {"compile": True, "cuda_graphs": graphs, "device": "cuda"}
    assert_equal(module, torch.float64, 50, 1e-6, **given)
