"""Programs made of a model: compiled, traced, exported; and what they compute."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch._dynamo.testing import CompileCounter


def compilations(function: Callable, tensor: torch.Tensor, values: Sequence) -> int:
    """How many graphs ``function(tensor, value)`` needs for all values; each equals eager."""
    torch._dynamo.reset()
    counter = CompileCounter()
    compiled = torch.compile(function, fullgraph=True, backend=counter)
    for value in values:
        torch.manual_seed(0)
        got = compiled(tensor, value)
        torch.manual_seed(0)
        torch.testing.assert_close(got, function(tensor, value))
    return counter.frame_count


def compiled_gradients(function: Callable, leaves: Sequence[torch.Tensor]) -> None:
    """The gradients of one graph of the scalar ``function(*leaves)`` are those of eager."""
    torch._dynamo.reset()
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    got = torch.autograd.grad(compiled(*leaves), leaves)
    torch.testing.assert_close(got, torch.autograd.grad(function(*leaves), leaves))


def traced(module: torch.nn.Module, inputs: torch.Tensor, path: Path) -> torch.nn.Module:
    """What `torch.jit.trace` made of the module, saved and loaded; it runs without genkern."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that torch.jit is deprecated, and that shapes are fixed
        torch.jit.trace(module, inputs, check_trace=not module.training).save(path)
        loaded = torch.jit.load(path)
    assert "genkern::" not in str(loaded.inlined_graph)
    return loaded


def onnx_outputs(
    module: torch.nn.Module, inputs: torch.Tensor, path: Path, *, dynamo: bool
) -> list[np.ndarray]:
    """What onnxruntime computes with the exported module."""
    import onnxruntime

    mode = torch.onnx.TrainingMode.TRAINING if module.training else torch.onnx.TrainingMode.EVAL
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the exporter without dynamo is deprecated
        torch.onnx.export(
            module, (inputs,), path, dynamo=dynamo, verbose=False, training=mode,
            input_names=["input"],
        )  # fmt: skip
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"input": inputs.numpy()})
