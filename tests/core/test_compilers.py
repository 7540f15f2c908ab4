"""torch around every op: opcheck, compilers, transforms, and whoever watches or replaces a call."""

import pytest
import torch
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode

from tests.core.contract import F64, compiled_part, each_family, each_sample, of_each_sample
from tests.core.helpers import run
from tests.core.samples import declared, load, stems

# ---- the ops as torch sees them --------------------------------------------------------------


class Calls(TorchDispatchMode):
    """The calls of the ops of genkern within the block: (op, arguments)."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, op, types, arguments=(), keywords=None):
        if op.namespace == "genkern":
            self.found.append((op, arguments))
        return op(*arguments, **(keywords or {}))


def recorded(sample, inputs, upstream):
    with Calls() as calls:
        run(sample.outputs, inputs, upstream)
    return calls.found


def double_backward(sample):
    """The call of what differentiates the gradients."""
    leaves = [x if x is None else x.requires_grad_() for x in sample.make()[0]]
    wanted = [x for x in leaves if x is not None]
    total = sum(y.square().sum() for y in sample.outputs(*leaves))
    found = torch.autograd.grad(total, wanted, create_graph=True)
    with Calls() as calls:
        torch.autograd.grad(sum(g.square().sum() for g in found), wanted)
    return calls.found[:1]


def op_calls(stem, sample):
    """Calls of both ops: as they come, of one result alone, and of the last gradient alone; and of
    the op of double backward where there is one."""
    inputs, upstream = sample.make()
    calls = recorded(sample, inputs, upstream)
    if len(upstream) > 1:
        calls += recorded(sample, inputs, [upstream[0], *[None] * (len(upstream) - 1)])[1:]
    op, arguments = calls[-1]
    count = declared(stem).differentiable
    calls.append((op, (*arguments[:-count], *[False] * (count - 1), arguments[-1])))
    if declared(stem).second is not None:
        (twice,) = double_backward(sample)
        assert twice[0]._schema.name == f"genkern::{stem}_backward_backward"
        detached = [a.detach() if isinstance(a, torch.Tensor) else a for a in twice[1]]
        calls.append((twice[0], tuple(detached)))
    return calls


@each_sample
def test_opcheck(stem, sample):
    calls = op_calls(stem, sample)
    assert [op._schema.name.removeprefix(f"genkern::{stem}_") for op, _ in calls[:2]] == [
        "forward",
        "backward",
    ]
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    for op, arguments in calls:
        torch.library.opcheck(op, arguments, test_utils=checks)


@of_each_sample(quick=1)
def test_opcheck_of_compiled_calls(stem, sample):
    for op, arguments in op_calls(stem, sample):
        torch.library.opcheck(op, arguments, test_utils="test_aot_dispatch_dynamic")


@each_sample
def test_a_dispatch_mode_and_the_profiler_see_the_call(stem, sample):
    inputs, upstream = sample.make()
    with torch.profiler.profile() as profiler:
        run(sample.outputs, inputs, upstream)
    names = {event.key for event in profiler.key_averages()}
    assert {f"genkern::{stem}_forward", f"genkern::{stem}_backward"} <= names


@compiled_part
@each_family
@pytest.mark.filterwarnings("ignore:.*Overriding a previously registered kernel")
def test_another_implementation_takes_the_place_of_the_kernel(stem):
    sample = load(stem).samples[0]
    inputs, _ = sample.make()
    family, calls = declared(stem), []

    def mine(*arguments):
        calls.append(arguments)
        found = family.reference(*arguments[:-1] if family.saved else arguments)
        if not family.saved:
            return found
        missing = family.results + family.saved - len(found)
        return (*found, *(inputs[0].new_empty(0) for _ in range(missing)))

    before = sample.outputs(*inputs)
    registered = torch.library.Library("genkern", "IMPL")
    registered.impl(f"{stem}_forward", mine, "CPU", allow_override=True)
    try:
        torch.testing.assert_close(sample.outputs(*inputs), before)
        assert len(calls) == 1
    finally:
        registered._destroy()
    assert all(map(torch.equal, sample.outputs(*inputs), before)) and len(calls) == 1


# ---- torch.compile and export ----------------------------------------------------------------


def check_compiled(sample, backend, dynamic):
    """One graph forward and one backward, behind a change of the inputs; equal to eager."""
    torch._dynamo.reset()
    inputs, upstream = sample.make()

    def function(*tensors):
        # What the compiler makes itself has strides of its choice.
        return sample.call(*(t if t is None else t * 2 for t in tensors))

    compiled = torch.compile(function, fullgraph=True, dynamic=dynamic, backend=backend)
    results = []
    for call in (compiled, function):
        torch.manual_seed(5)
        results.append(run(call, inputs, upstream))
    torch.testing.assert_close(results[0], results[1])


class Together:
    """A call of every family, as one sample: a compiler takes its time for each graph."""

    def __init__(self, samples):
        self.samples, self.counts = samples, [len(s.make()[0]) for s in samples]

    def make(self):
        made = [sample.make() for sample in self.samples]
        return [[t for part in parts for t in part] for parts in zip(*made, strict=True)]

    def call(self, *tensors):
        found = []
        for sample, count in zip(self.samples, self.counts, strict=True):
            given, tensors = tensors[:count], tensors[count:]
            outputs = sample.call(*given)
            found += [outputs] if isinstance(outputs, torch.Tensor) else outputs
        return tuple(found)


def test_all_families_compile_to_one_graph_with_inductor():
    samples = [load(stem).samples[0] for stem in stems()]
    assert not any(sample.noise for sample in samples)  # a compiler draws noise of its own
    check_compiled(Together(samples), "inductor", dynamic=False)


@of_each_sample(quick=2)
def test_compiles_to_one_graph_with_dynamic_shapes(stem, sample):
    check_compiled(sample, "aot_eager", dynamic=True)


@each_family
def test_compiles_to_one_graph_under_autocast(stem):
    sample = load(stem).samples[0]
    inputs, _ = sample.make()

    @torch.compile(fullgraph=True, backend="aot_eager")
    def compiled(*tensors):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return sample.call(*tensors)

    torch._dynamo.reset()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        want = sample.call(*inputs)
    torch.testing.assert_close(compiled(*inputs), want)


class Model(torch.nn.Module):
    def __init__(self, call):
        super().__init__()
        self.call = call

    def forward(self, *tensors):
        return self.call(*tensors)


@each_family
def test_an_exported_program_runs_the_reference(stem):
    sample = load(stem).samples[0]
    inputs, _ = sample.make()
    program = torch.export.export(Model(sample.call), tuple(inputs))
    assert "genkern" not in str(program.graph)
    torch.testing.assert_close(program.module()(*inputs), sample.call(*inputs))


# ---- transforms ------------------------------------------------------------------------------


def present(inputs):
    return [i for i, x in enumerate(inputs) if x is not None]


def of_the_present(sample, inputs, function):
    """``function`` of the tensors that are there, the others left out."""

    def called(*tensors):
        given = [*inputs]
        for i, tensor in zip(present(inputs), tensors, strict=True):
            given[i] = tensor
        return function(*given)

    return called, [inputs[i] for i in present(inputs)]


@each_sample
def test_forward_mode_gives_the_tangent(stem, sample):
    inputs, _ = sample.make(F64)
    tangents, _ = sample.make(F64, seed=1)
    definition, tensors = of_the_present(sample, inputs, sample.defined)
    along = tuple(tangents[i] for i in present(inputs))
    want, want_tangents = torch.func.jvp(definition, tuple(tensors), along)
    with forward_ad.dual_level():
        duals = [
            x if x is None else forward_ad.make_dual(x, t)
            for x, t in zip(inputs, tangents, strict=True)
        ]
        found = [forward_ad.unpack_dual(y) for y in sample.outputs(*duals)]
    torch.testing.assert_close(tuple(y.primal for y in found), want)
    torch.testing.assert_close(tuple(y.tangent for y in found), want_tangents)
    call, _ = of_the_present(sample, inputs, sample.outputs)
    torch.testing.assert_close(torch.func.jvp(call, tuple(tensors), along)[1], want_tangents)


@each_sample
def test_vmap_and_vectorised_jacobians(stem, sample):
    copies = [sample.make(seed=i)[0] for i in range(3)]
    call, _ = of_the_present(sample, copies[0], sample.outputs)
    tensors = [[c[i] for c in copies] for i in present(copies[0])]
    stacked = [torch.stack(t) for t in tensors]
    if sample.noise:  # whether the copies share it is for the caller to say
        with pytest.raises(RuntimeError, match="randomness"):
            torch.func.vmap(call)(*stacked)
        return
    found = torch.func.vmap(call)(*stacked)
    for i, inputs in enumerate(copies):
        torch.testing.assert_close(tuple(y[i] for y in found), sample.outputs(*inputs))


@each_sample
def test_batched_gradients_are_those_of_each(stem, sample):
    inputs, upstream = sample.make(F64)
    leaves = [x if x is None else x.requires_grad_() for x in inputs]
    wanted = [x for x in leaves if x is not None]
    outputs = sample.outputs(*leaves)
    batch = [torch.stack([d, -2 * d]) for d in upstream]
    found = torch.autograd.grad(
        outputs, wanted, batch, is_grads_batched=True, retain_graph=True, allow_unused=True
    )
    want = torch.autograd.grad(outputs, wanted, upstream, allow_unused=True)
    for got, one in zip(found, want, strict=True):
        torch.testing.assert_close(got, torch.stack([one, -2 * one]))
