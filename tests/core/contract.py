"""The contract of every op: numbers, gradients, memory, errors; torch around it: test_compilers.py.

Everything here runs over the samples of every family; what is particular stands with the family.
"""

import copy
import itertools
import pickle

import pytest
import torch

import genkern
from benchmarks.core.cpu import allocator_peak
from tests.core.helpers import double, gradients, run
from tests.core.samples import Normal, declared, load, stems
from tests.core.strategies import DTYPES, LAYOUTS, lay_out

F64 = torch.float64
BF16 = torch.bfloat16
each_family = pytest.mark.parametrize("stem", stems())


def of_each_sample(quick: int | None = None):
    """A test of every sample: in the quick tier, of the first ``quick`` ones of each family."""
    found = []
    for stem in stems():
        for i, sample in enumerate(load(stem).samples):
            marks = [] if quick is None or i < quick else [pytest.mark.deep]
            found.append(pytest.param(stem, sample, id=f"{stem}: {sample.name}", marks=marks))
    return pytest.mark.parametrize("stem, sample", found)


each_sample = of_each_sample()
compiled_part = pytest.mark.skipif(
    genkern.library.compiled is None, reason="GENKERN_BUILD=none: this is about the kernels"
)


# ---- layouts ---------------------------------------------------------------------------------


@each_sample
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_of_every_tensor(stem, sample, layout):
    """Of each tensor every dtype in two of the layouts; all pairs in the deep tier."""
    check_layouts(sample, layout, one_dtype=True)


@pytest.mark.deep
@each_sample
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_and_dtype_of_every_tensor(stem, sample, layout):
    check_layouts(sample, layout, one_dtype=False)


def check_layouts(sample, layout, one_dtype):
    for d, dtype in enumerate(sample.dtypes):
        inputs, upstream = sample.make(dtype)
        everything = [*inputs, *upstream]
        for i, tensor in enumerate(everything):
            if tensor is None or tensor.ndim == 0:
                continue
            if one_dtype and (i + LAYOUTS.index(layout)) % len(sample.dtypes) != d:
                continue
            changed = [*everything[:i], lay_out(tensor, layout), *everything[i + 1 :]]
            sample.check(changed[: len(inputs)], changed[len(inputs) :])


@each_sample
def test_upstream_gradients_of_every_kind(stem, sample):
    """Of each kind every second dtype; all pairs in the deep tier."""
    check_upstream_gradients(sample, step=2)


@pytest.mark.deep
@each_sample
def test_upstream_gradients_of_every_kind_and_dtype(stem, sample):
    check_upstream_gradients(sample, step=1)


def check_upstream_gradients(sample, step):
    for j, dtype in enumerate(sample.dtypes):
        inputs, upstream = sample.make(dtype)
        for i, d in enumerate(upstream):
            kinds = [d.new_ones(()).expand_as(d), torch._neg_view(-d)]
            kinds.append(torch._efficientzerotensor(d.shape, dtype=dtype, device=d.device))
            if len(upstream) > 1:
                kinds.append(None)
            for kind in kinds[j % step :: step]:
                sample.check(inputs, [*upstream[:i], kind, *upstream[i + 1 :]])
                alone = [None] * len(upstream)
                if kind is not None:
                    sample.check(inputs, [*alone[:i], kind, *alone[i + 1 :]])


@each_sample
def test_a_gradient_has_the_strides_of_its_parameter(stem, sample):
    inputs, upstream = sample.make()
    for i in sample.weights:
        weight = inputs[i]
        if weight is None or weight.ndim < 2:
            continue
        changed = [*inputs]
        changed[i] = lay_out(weight, "permuted")
        _, grads = run(sample.outputs, changed, upstream)
        assert grads[i].stride() == changed[i].stride()


@each_sample
def test_inputs_are_not_written(stem, sample):
    inputs, upstream = sample.make()
    tensors = [t for t in (*inputs, *upstream) if t is not None]
    before = [(t.clone(), t._version) for t in tensors]
    run(sample.outputs, inputs, upstream)
    for t, (values, version) in zip(tensors, before, strict=True):
        assert torch.equal(t, values) and t._version == version


@each_sample
def test_results_are_ordinary_tensors(stem, sample):
    inputs, upstream = sample.make()
    outputs = sample.outputs(*inputs)
    _, grads = run(sample.outputs, inputs, upstream)
    for result in (*outputs, *(g for g in grads if g is not None)):
        values, storage = result.clone(), result.untyped_storage()
        size = storage.nbytes()
        storage.resize_(0)  # an activation that is offloaded, and comes back
        storage.resize_(size)
        result.copy_(values)
        assert torch.equal(result, values)
        if result.ndim:
            torch.cat([values, values], out=result.resize_(0))
            assert torch.equal(result, torch.cat([values, values]))


# ---- gradients -------------------------------------------------------------------------------


@each_sample
def test_gradients_of_both_orders(stem, sample):
    inputs, _ = sample.make(F64)
    leaves = [x if x is None else x.requires_grad_() for x in inputs]
    assert torch.autograd.gradcheck(sample.outputs, leaves, fast_mode=True)
    assert torch.autograd.gradgradcheck(sample.outputs, leaves, fast_mode=True)


@each_sample
def test_gradients_go_only_where_they_are_needed(stem, sample):
    inputs, upstream = sample.make()
    _, whole = run(sample.outputs, inputs, upstream)
    for needed in itertools.product([False, True], repeat=len(inputs)):
        leaves = [
            x if x is None else x.detach().requires_grad_(n)
            for x, n in zip(inputs, needed, strict=True)
        ]
        wanted = [x for x in leaves if x is not None and x.requires_grad]
        outputs = sample.outputs(*leaves)
        assert any(y.requires_grad for y in outputs) == bool(wanted)
        if wanted:
            with gradients(stem) as found:
                torch.autograd.backward(outputs, upstream)
            assert sum(found) == len(wanted)  # the others are not computed either
        for leaf, want in zip(leaves, whole, strict=True):
            if leaf is None or not leaf.requires_grad:
                assert leaf is None or leaf.grad is None
            else:
                torch.testing.assert_close(leaf.grad, want)
    with torch.no_grad():
        assert all(y.grad_fn is None for y in sample.outputs(*leaves))


@each_sample
def test_second_derivatives_run_through_inputs_that_share_a_parent(stem, sample):
    inputs, _ = sample.make(F64)

    def curvature(function):
        x = torch.linspace(0.1, 1.0, 3, dtype=F64).requires_grad_()
        factors = x.sin(), x.square(), x.exp()
        tied = [t if t is None else t * factors[i % 3].sum() for i, t in enumerate(inputs)]
        total = sum(y.square().sum() for y in function(*tied))
        (first,) = torch.autograd.grad(total, x, create_graph=True)
        return first, *torch.autograd.grad(first.square().sum(), x)

    torch.testing.assert_close(curvature(sample.outputs), curvature(sample.defined))


@each_sample
def test_backward_twice_and_changed_inputs(stem, sample):
    inputs, _ = sample.make(F64)
    leaves = [x if x is None else x.requires_grad_() for x in inputs]
    wanted = [x for x in leaves if x is not None]
    total = lambda: sum(y.square().sum() for y in sample.outputs(*leaves))  # noqa: E731
    loss = total()
    first = torch.autograd.grad(loss, wanted, retain_graph=True, allow_unused=True)
    again = torch.autograd.grad(loss, wanted, allow_unused=True)
    assert all(map(torch.equal, first, again))
    with pytest.raises(RuntimeError, match="a second time"):
        loss.backward()
    loss = total()
    with torch.no_grad():
        wanted[0].add_(1)
    if declared(stem).adjoint is not None:  # of what is linear the backward pass needs no values
        assert torch.equal(torch.autograd.grad(loss, wanted)[0], again[0])
        return
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


# ---- dtypes and backends ---------------------------------------------------------------------


@each_sample
@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_autocast(stem, sample, half):
    """A loss computes in float32, a product in the autocast dtype; float64 stays what it is."""
    product = load(stem).autocast == "product"
    given, inside = (torch.float32, half) if product else (half, torch.float32)
    inputs, _ = sample.make(given)
    leaves = [x if x is None else x.requires_grad_() for x in inputs]
    with torch.autocast("cpu", dtype=half):
        outputs = sample.outputs(*leaves)
        exact = sample.outputs(*double(inputs))
    assert all(y.dtype == inside for y in outputs) and all(y.dtype == F64 for y in exact)
    want = sample.outputs(*(x if x is None else x.detach().to(inside) for x in inputs))
    assert all(map(torch.equal, outputs, want))
    sum(y.float().sum() for y in outputs).backward()
    assert all(x is None or x.grad is None or x.grad.dtype == given for x in leaves)
    if not product:
        mixed = [x if x is None or i else x.float() for i, x in enumerate(inputs)]
        with torch.autocast("cpu", dtype=half):
            assert all(map(torch.equal, sample.outputs(*mixed), want))


@each_sample
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_reference_backend_gives_the_same(stem, sample, dtype):
    inputs, upstream = sample.make(dtype)
    fast = run(sample.outputs, inputs, upstream)
    with genkern.use_backend("reference"):
        assert all(
            y.dtype == dtype and y.shape == f.shape
            for y, f in zip(sample.outputs(*inputs), fast[0], strict=True)
        )
        assert genkern.last_backend(stem) == "reference"
        exact = run(sample.outputs, double(inputs), double(upstream))
    want = run(sample.defined, double(inputs), double(upstream))
    torch.testing.assert_close(exact, want)
    sample.check(inputs, upstream)
    assert genkern.last_backend(stem) == "cpu"


@each_sample
def test_meta_tensors_have_the_shapes_and_strides_of_real_ones(stem, sample):
    inputs, upstream = sample.make()
    real = run(sample.outputs, inputs, upstream)
    meta = lambda tensors: [t if t is None else t.to("meta") for t in tensors]  # noqa: E731
    found = run(sample.outputs, meta(inputs), meta(upstream))
    for got, want in zip((*found[0], *found[1]), (*real[0], *real[1]), strict=True):
        if want is not None:
            assert got.device.type == "meta" and got.dtype == want.dtype
            assert got.shape == want.shape and got.stride() == want.stride()


# ---- errors, memory, modules -----------------------------------------------------------------


ERRORS = [
    pytest.param(*case, id=f"{stem}: {case[2]}") for stem in stems() for case in load(stem).errors
]


@pytest.mark.parametrize("call, error, text", ERRORS)
def test_errors_name_op_argument_and_value(call, error, text):
    with pytest.raises(error, match=text):
        call()


@compiled_part
@each_family
def test_no_call_holds_more_memory_than_it_says(stem):
    for peak in load(stem).peaks():
        found = allocator_peak(peak.call)
        assert peak.at_least <= found <= peak.at_most, f"{peak.name}: {found} bytes"


@each_family
def test_modules_copy_load_and_cast(stem):
    for module in load(stem).modules:
        layer, input = module.build(), module.input(Normal(torch.float32))
        assert module.text in repr(layer)
        other = module.build()
        other.load_state_dict(layer.state_dict())
        clones = [copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), other]
        results = []
        for clone in (layer, *clones):
            torch.manual_seed(1)
            found = clone(input)
            results.append(found if isinstance(found, tuple) else (found,))
            assert repr(clone) == repr(layer)
        for result in results[1:]:
            assert all(map(torch.equal, result, results[0]))
        half = layer.bfloat16()(input.bfloat16())
        assert all(y.dtype == BF16 for y in (half if isinstance(half, tuple) else (half,)))


# ---- tests of the tests ----------------------------------------------------------------------


def last_element_off(op, which, share):
    def perturbed(*arguments):
        found = op(*arguments)
        result = (found if isinstance(found, tuple) else (found,))[which]
        last = result[(-1,) * result.ndim]
        last += share * (1 + last.abs())
        return found

    return perturbed


@compiled_part
@each_sample
@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("dtype, share", [(F64, 1e-6), (torch.float32, 0.1)])
def test_the_check_catches_one_wrong_element(stem, sample, direction, dtype, share, monkeypatch):
    family, (inputs, upstream) = declared(stem), sample.make(dtype)
    sample.check(inputs, upstream)
    outputs, grads = run(sample.outputs, inputs, upstream)
    results = outputs if direction == "forward" else grads
    op = getattr(family, direction)
    for i, result in enumerate(results):
        if result is not None and result.numel():
            monkeypatch.setattr(family, direction, last_element_off(op, i, share))
            with pytest.raises(AssertionError):
                sample.check(inputs, upstream)
