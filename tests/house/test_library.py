"""Choice of backend: what runs is said, what cannot run raises."""

import pytest
import torch

import genkern
from genkern import library
from tests.core.helpers import probe

X = torch.ones(2, 3)


def test_use_backend_lists_the_valid_names():
    with (
        pytest.raises(ValueError, match="one of reference, cpu, triton, cuda; got 'gpu'"),
        genkern.use_backend("gpu"),
    ):
        pass


def test_use_backend_is_undone_after_an_error():
    with pytest.raises(KeyError), genkern.use_backend("reference"):
        raise KeyError
    genkern.gaussian_kl(X, X)
    assert genkern.last_backend("gaussian") == "cpu"


def test_a_backend_that_cannot_run_raises_and_says_why():
    with (
        genkern.use_backend("triton"),
        pytest.raises(RuntimeError, match="gaussian: backend 'triton' needs cuda tensors; got cpu"),
    ):
        genkern.gaussian_kl(X, X)


def test_meta_tensors_have_shapes_without_data():
    z, kl = genkern.gaussian_kl_rsample(X.to("meta"), X.to("meta"), num_samples=4)
    assert z.shape == (4, 2, 3) and kl.shape == (2,) and z.device.type == "meta"


def test_environment_variables_name_their_valid_values():
    code = "import genkern"
    for name, values in (
        ("GENKERN_CPU_ISA", "baseline, avx2, avx512"),
        ("GENKERN_BACKEND", "reference, cpu, triton, cuda"),
    ):
        with pytest.raises(AssertionError, match=f"{name}.*must be one of {values}; got 'x'"):
            probe(code, environment={name: "x"})


def test_the_backend_variable_forces_the_reference():
    code = "genkern.gaussian_kl(torch.ones(2, 3), torch.ones(2, 3))\n"
    code += "print(genkern.last_backend('gaussian'))"
    assert probe(code, environment={"GENKERN_BACKEND": "reference"}) == "reference\n"


def test_without_the_compiled_part_one_warning_and_the_reference():
    code = """
import importlib, sys, warnings
for level in genkern.library.LEVELS:
    sys.modules[f"genkern._C_{level}"] = None
genkern.library.compiled, genkern.library.compiled_error = genkern.library._load_compiled()
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for _ in range(3):
        genkern.gaussian_kl(torch.ones(2, 3), torch.ones(2, 3))
print(len(caught), caught[0].category.__name__, caught[0].message)
print(genkern.last_backend("gaussian"))
"""
    warning, backend = probe(code).splitlines()
    assert warning.startswith("1 RuntimeWarning genkern: gaussian runs on its PyTorch reference: ")
    assert backend == "reference"


@pytest.mark.skipif(not library.ops_file("small").exists(), reason="GENKERN_BUILD_SMALL=1 was not")
def test_the_ops_with_small_blocks_are_loaded_on_request_alone():
    code = "print(genkern.library.compiled.isa)"
    assert probe(code, environment={"GENKERN_CPU_ISA": "small"}) == "small\n"
    assert "small" not in library.LEVELS


def test_the_loaded_level_is_the_best_of_the_cpu():
    assert library.compiled is not None and library.compiled.isa == library.cpu_level()
