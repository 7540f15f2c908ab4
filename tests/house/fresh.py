"""`python -m tests.house.fresh FAMILY`: what importing genkern does to a process, as JSON."""

import contextlib
import gc
import importlib
import io
import json
import os
import sys
import warnings
from pathlib import Path


def wrong_settings() -> list[str]:
    """The errors of an import with a wrong value in the environment."""
    found = []
    for name in ("GENKERN_CPU_ISA", "GENKERN_BACKEND"):
        os.environ[name] = "x"
        try:
            importlib.import_module("genkern")
        except ValueError as error:
            found.append(str(error))
        del os.environ[name]
        for module in [m for m in sys.modules if m.partition(".")[0] == "genkern"]:
            del sys.modules[module]
        gc.collect()  # and with the module its registration
    return found


def settings_of_torch() -> list:
    import torch

    state = torch.get_rng_state().tolist()
    return [state, torch.get_num_threads(), str(torch.get_default_dtype())]


def started_threads(call, threads: int) -> int | None:
    """Threads that ``call`` starts when torch may use ``threads``."""
    import torch

    folder = Path("/proc/self/task")
    if not folder.exists():
        return None
    torch.set_num_threads(threads)
    before = len(os.listdir(folder))
    call()
    return len(os.listdir(folder)) - before


def without_triton(family: str, call) -> dict:
    """What is said where triton is not installed: nothing, before a CUDA tensor comes."""
    import torch

    from genkern import library

    sys.modules["triton"] = None  # type: ignore[assignment]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        call()
        reason = library.triton_reason(family)
    on_gpu = type("OnGpu", (), {"device": torch.device("cuda"), "is_cpu": False})()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        chosen = [library.choose(family, on_gpu) for _ in range(2)]
    del sys.modules["triton"], library._triton_state[family]
    return {"reason": reason, "chosen": chosen, "warnings": [str(w.message) for w in caught]}


def without_compiled_part(call) -> dict:
    """What a call, and the report, say where no library of the ops is there."""
    import genkern.__main__
    from genkern import library

    library.ops_file = lambda level: Path("nowhere") / level
    library.compiled, library.compiled_error = library.load_compiled()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            call()
    output = io.StringIO()
    sys.argv = ["genkern"]
    with contextlib.redirect_stdout(output):
        genkern.__main__.main()
    texts = [f"{w.category.__name__}: {w.message}" for w in caught]
    return {"warnings": texts, "report": output.getvalue()}


def main(family: str) -> None:
    import torch

    found: dict = {"wrong settings": wrong_settings()}
    before, modules = settings_of_torch(), set(sys.modules)
    import genkern

    found["settings kept"] = settings_of_torch() == before
    new = set(sys.modules) - modules
    found["modules of triton"] = [m for m in new if "triton" in m]
    found["CUDA initialised"] = torch.cuda.is_initialized()
    found["compiled"] = genkern.library.compiled is not None

    from tests.core.samples import load

    torch.set_num_threads(1)
    sample = load(family).large[0]
    inputs, _ = sample.make()
    call = lambda: sample.outputs(*inputs)  # noqa: E731
    found["backend"] = genkern.last_backend(family)
    # Only one thread so far: the op is the first that could start others.
    found["threads"] = [started_threads(call, n) for n in (1, 3)]
    found["without triton"] = without_triton(family, call)
    found["without"] = without_compiled_part(call)
    found["without"]["backend"] = genkern.last_backend(family)
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
