"""`python -m genkern`."""

import json
import os
import subprocess
import sys

import genkern
from genkern import library


def main(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "genkern", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


def test_the_report_names_versions_levels_threads_and_backends():
    result = main(OMP_NUM_THREADS="1")
    assert result.returncode == 0, result.stderr
    head, _, table = result.stdout.partition("\n\n")
    lines = {line[:16].strip(): line[16:] for line in head.splitlines()}
    assert lines["genkern"] == genkern.__version__
    assert lines["compiled parts"].startswith("built: baseline")
    assert f"loaded: {library.compiled.isa} (compiler " in lines["compiled parts"]
    assert lines["CPU level"].startswith(library.cpu_level())
    assert lines["threads"] == "1"
    assert lines["backend"] == "by the tensor's device"
    rows = {line.split()[0]: line.split()[1:] for line in table.splitlines()}
    assert rows["op"][1:] == list(library.BACKENDS)
    for family in ("gan_loss", "gaussian", "masked_conv2d", "row_lstm"):
        assert rows[family][:2] == ["available", "available"]


def test_json_gives_the_same_facts_and_the_reasons():
    result = main("--json", GENKERN_CPU_ISA="baseline", GENKERN_BACKEND="reference")
    info = json.loads(result.stdout)
    assert (info["loaded"], info["cpu_level"]) == ("baseline", "baseline")
    assert info["GENKERN_CPU_ISA"] == "baseline" and info["GENKERN_BACKEND"] == "reference"
    assert set(info["built"]) <= set(library.LEVELS)
    if not info["cuda_devices"]:
        assert info["backends"]["gan_loss"]["triton"] == "no CUDA device"
    text = main(GENKERN_CPU_ISA="baseline", GENKERN_BACKEND="reference").stdout
    assert "GENKERN_CPU_ISA = baseline" in text and "reference (GENKERN_BACKEND)" in text


def test_a_wrong_level_or_backend_lists_the_valid_ones():
    result = main(GENKERN_CPU_ISA="nonsense")
    assert result.returncode != 0
    text = "GENKERN_CPU_ISA must be one of baseline, avx2, avx512; got 'nonsense'"
    assert text in result.stderr.splitlines()[-1]
    result = main(GENKERN_BACKEND="gpu")
    assert "one of reference, cpu, triton, cuda; got 'gpu'" in result.stderr.splitlines()[-1]


def test_a_misspelt_option_lists_the_valid_ones():
    result = main("--jsn")
    assert result.returncode == 2
    assert "[--json]" in result.stderr and "unrecognized arguments: --jsn" in result.stderr


def test_without_the_compiled_part_the_report_says_why():
    code = """
import runpy, sys
for level in ("baseline", "avx2", "avx512"):
    sys.modules[f"genkern._C_{level}"] = None
sys.argv = ["genkern"]
runpy.run_module("genkern", run_name="__main__")
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "built: none; none loaded: " in result.stdout
    rows = [line.split() for line in result.stdout.splitlines() if line.startswith("gan_loss")]
    assert rows[0][1:4] == ["available", "no", "(1)"]
    assert "(1) the compiled part is missing (" in result.stdout
