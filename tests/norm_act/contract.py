"""Conditional batch norm over two processes: the statistics of one with the whole batch."""

import subprocess
import sys
from pathlib import Path

import torch
from torch import distributed

import genkern

SHARES = slice(0, 4), slice(4, 6)  # of the batch: a process may have fewer images than another


def step(share, reduce):
    """Outputs, gradients of a loss with a penalty, running statistics; `reduce` adds processes."""
    torch.manual_seed(0)
    x, labels = torch.randn(6, 3, 4, 5) + 2, torch.tensor([0, 2, 1, 0, 2, 2])
    layer = genkern.nn.ConditionalBatchNorm2d(3, 3, act="swish", sync=True)
    torch.nn.init.normal_(layer.weight), torch.nn.init.normal_(layer.bias)
    x, labels = x[share].requires_grad_(), labels[share]
    y = layer(x, labels)
    (g,) = torch.autograd.grad(y.sin().sum(), x, create_graph=True)
    loss = y.square().sum() + g.square().sum()
    found = torch.autograd.grad(loss, (x, layer.weight, layer.bias))
    of_rows = [reduce(d) for d in found[1:]]
    return y.detach(), found[0], *of_rows, layer.running_mean, layer.running_var


def process(rank, path):
    distributed.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=2)
    try:

        def reduce(d):
            distributed.all_reduce(d)
            return d

        return step(SHARES[rank], reduce)
    finally:
        distributed.destroy_process_group()


def test_two_processes_have_the_statistics_and_gradients_of_one(tmp_path):
    code = f"from tests.norm_act.contract import process; process(1, {str(tmp_path / 'store')!r})"
    root = Path(__file__).parents[2]
    other = subprocess.Popen([sys.executable, "-c", code], cwd=root, stderr=subprocess.PIPE)
    found = process(0, tmp_path / "store")
    _, errors = other.communicate(timeout=60)
    assert other.returncode == 0, errors.decode()[-2000:]
    want = list(step(slice(None), lambda d: d))
    want[:2] = (t[SHARES[0]] for t in want[:2])
    for a, b in zip(found, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    apart = step(SHARES[0], lambda d: d)  # which statistics of its own would not give
    assert (apart[0] - want[0]).abs().max() > 1e-2
