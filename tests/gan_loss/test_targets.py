"""Targets of the GAN losses, their one-sided form, means over processes, statistics."""

import copy
import itertools
import math
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F

import genkern
from genkern.nn import GANLoss
from genkern.reference import gan_loss as reference
from tests.core.helpers import run
from tests.core.strategies import DTYPES

F64 = torch.float64
bce = F.binary_cross_entropy_with_logits


def logits(n=33, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(n, dtype=F64, generator=generator)


def agree(got, want, *inputs, upstream=None):
    inputs = list(inputs)
    upstream = [torch.tensor(0.7, dtype=F64) if upstream is None else upstream]
    torch.testing.assert_close(run(got, inputs, upstream), run(want, inputs, upstream))
    leaves = [x.requires_grad_() for x in inputs]
    assert torch.autograd.gradgradcheck(got, leaves, fast_mode=True)


@pytest.mark.parametrize("labels", [(0.9, 0.1), (1.0, 0.25), (0.75, 0.0), (0.5, 1.0)])
def test_cross_entropy_takes_any_labels(labels):
    def want(r, f):
        return bce(r, torch.full_like(r, labels[0])) + bce(f, torch.full_like(f, labels[1]))

    def got(r, f):
        return genkern.gan_d_loss(r, f, real_label=labels[0], fake_label=labels[1])

    agree(got, want, logits(), logits(20, 1))


def test_two_sided_smoothing_is_a_label_on_either_side():
    r, f = logits(), logits(20, 1)
    got = genkern.gan_d_loss(r, f, label_smoothing=0.1, fake_label=0.1)
    want = bce(r, torch.full_like(r, 0.9)) + bce(f, torch.full_like(f, 0.1))
    torch.testing.assert_close(got, want)
    schedule = genkern.gan_d_loss(r, f, label_smoothing=torch.tensor(0.1, dtype=F64),
                                  fake_label=0.1)  # fmt: skip
    torch.testing.assert_close(schedule, want)


@pytest.mark.parametrize("a, b, c", [(-1.0, 1.0, 0.0), (0.0, 1.0, 1.0), (-3.5, 7.0, 7.0)])
def test_least_squares_take_any_targets(a, b, c):
    """Mao et al. 2017, eq. 2, with a for the fakes, b for the reals, c for the generator."""

    def want(r, f):
        return ((r - b).square().mean() + (f - a).square().mean()) / 2

    def got(r, f):
        return genkern.gan_d_loss(r, f, kind="lsgan", real_label=b, fake_label=a)

    agree(got, want, logits(), logits(20, 1))
    agree(lambda f: genkern.gan_g_loss(f, kind="lsgan", target=c),
          lambda f: (f - c).square().mean() / 2, logits())  # fmt: skip


def test_a_generator_may_want_less_than_certainty():
    agree(lambda f: genkern.gan_g_loss(f, target=0.8),
          lambda f: bce(f, torch.full_like(f, 0.8)), logits())  # fmt: skip


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_relativistic_labels_and_every_dtype(dtype, reduction):
    r, f = logits().to(dtype), logits(33, 1).to(dtype)
    for kind in ("bce", "lsgan", "rabce"):
        options = {"kind": kind, "real_label": 0.9, "fake_label": 0.2, "reduction": reduction}
        got = genkern.gan_d_loss(r, f, **options)
        want = reference.d_loss(r.double(), f.double(), **options)
        tolerance = {"rtol": 4 * torch.finfo(dtype).eps, "atol": 1e-6 if dtype != F64 else 1e-13}
        torch.testing.assert_close(got.double(), want, **tolerance)


def test_infinite_logits_give_the_limit():
    inf = torch.tensor([math.inf, -math.inf], dtype=F64)
    found = genkern.gan_d_loss(inf, inf, real_label=1.0, fake_label=1.0, reduction="none")
    assert found.tolist() == [0.0, math.inf]
    found = genkern.gan_d_loss(inf, inf, real_label=0.5, fake_label=0.5, reduction="none")
    assert found.tolist() == [math.inf, math.inf]


def test_labels_without_meaning_are_refused():
    x = torch.randn(3)
    for call, text in (
        (lambda: genkern.gan_d_loss(x, x, kind="hinge", fake_label=0.1),
         "fake_label must be 0 for kind 'hinge'"),
        (lambda: genkern.gan_d_loss(x, x, real_label=1.5), r"real_label must be in \[0.0, 1.0\]"),
        (lambda: genkern.gan_d_loss(x, x, real_label=0.5, label_smoothing=0.6),
         r"label_smoothing must be in \[0, 0.5\]; got 0.6"),
        (lambda: genkern.gan_g_loss(x, kind="wgan", target=0.5),
         "target must be 1 for kind 'wgan'"),
        (lambda: genkern.gan_g_loss(x, saturating=True, target=0.5),
         "target must be 1 for saturating losses"),
        (lambda: GANLoss("bce", one_sided=True), "one_sided must be False for kind 'bce'"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=text):
            call()


# ---- the module ------------------------------------------------------------------------------


@pytest.mark.parametrize("saturating", [False, True])
def test_the_one_sided_relativistic_generator(saturating):
    def want(r, f):
        x = f - r.mean()
        return -F.softplus(x).mean() if saturating else F.softplus(-x).mean()

    loss = GANLoss("rabce", one_sided=True, saturating=saturating)
    agree(lambda r, f: loss.generator(f, r), want, logits(), logits(20, 1))
    both = loss.generator([logits(), logits(9, 2)], [logits(5, 1), logits(7, 3)])
    torch.testing.assert_close(both, want(logits(5, 1), logits()) + want(logits(7, 3),
                                                                         logits(9, 2)))  # fmt: skip


def test_statistics_are_tensors_of_patches_and_scales():
    real = [torch.tensor([[1.0, -1.0], [2.0, 0.0]]), torch.tensor([3.0, 3.0])]
    fake = [torch.tensor([[-1.0, -1.0], [-2.0, 0.0]]), torch.tensor([3.0, -3.0])]
    found = GANLoss.statistics(real, fake)
    assert all(x.ndim == 0 and not x.requires_grad for x in found)
    assert [x.item() for x in found] == pytest.approx([8 / 6, -4 / 6, 4 / 6, 4 / 6])
    meta = GANLoss.statistics(real[0].to("meta"), fake[0].to("meta"))  # nothing is read
    assert meta.real_mean.device.type == "meta"


def _of_rank(rank, world, path, results):
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=world)
    torch.manual_seed(0)
    D = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(5, 1).double())
    found = []
    for options in _OPTIONS:
        loss = GANLoss("rabce", process_group=dist.group.WORLD, **options)
        for of_generator in (False, True):
            D.zero_grad()
            value = _loss(loss, D, _batch()[0][rank::world], _batch()[1][rank::world], of_generator)
            value.backward()
            dist.all_reduce(value := value.detach())
            found += [value / world, *(p.grad.clone() for p in D.parameters())]
    if rank == 0:
        results.extend([x.tolist() for x in found])  # a generator is not sent
    dist.destroy_process_group()


_OPTIONS = ({}, {"label_smoothing": 0.1, "saturating": True}, {"one_sided": True})


def _batch():
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(8, 5, dtype=F64, generator=generator) for _ in range(2)]


def _loss(loss, D, x, y, of_generator):
    r, f = D(torch.cat([x, y])).chunk(2)
    return loss.generator(f, r) if of_generator else loss.discriminator(r, f)


def _of_one():
    torch.manual_seed(0)
    D, found = torch.nn.Linear(5, 1).double(), []
    for options, of_generator in itertools.product(_OPTIONS, (False, True)):
        D.zero_grad()
        value = _loss(GANLoss("rabce", **options), D, *_batch(), of_generator)
        value.backward()
        found += [value.detach(), *(p.grad.clone() for p in D.parameters())]
    return found


def test_means_over_processes_give_the_losses_and_gradients_of_one(monkeypatch):
    """Two threads in the place of two processes; what they find is averaged, as DDP does."""
    barrier, here, slots = threading.Barrier(2), threading.local(), {}

    def all_reduce(x, group):
        slots[here.rank] = x.clone()
        barrier.wait()
        total = slots[0] + slots[1]
        barrier.wait()
        x.copy_(total)

    def of_rank(rank):
        here.rank, found = rank, []
        D = copy.deepcopy(shared)
        for options, of_generator in itertools.product(_OPTIONS, (False, True)):
            D.zero_grad()
            x, y = (t[rank::2] for t in _batch())
            value = _loss(
                GANLoss("rabce", process_group=object(), **options), D, x, y, of_generator
            )
            value.backward()
            found += [value.detach(), *(p.grad.clone() for p in D.parameters())]
        return found

    torch.manual_seed(0)
    shared = torch.nn.Linear(5, 1).double()
    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    with ThreadPoolExecutor(2) as pool:
        each = list(pool.map(of_rank, range(2)))
    found = [(a + b) / 2 for a, b in zip(*each, strict=True)]
    torch.testing.assert_close(found, _of_one(), rtol=1e-9, atol=1e-12)


@pytest.mark.deep
def test_two_processes_give_the_losses_and_gradients_of_one(tmp_path):
    import torch.multiprocessing as mp

    want = _of_one()
    with mp.Manager() as manager:
        results = manager.list()
        mp.spawn(_of_rank, (2, str(tmp_path / "store"), results), nprocs=2)
        found = [torch.tensor(x, dtype=F64) for x in results]
    torch.testing.assert_close(found, want, rtol=1e-9, atol=1e-12)
