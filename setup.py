"""Three builds of one source tree; `genkern.library` imports the best one for the CPU.

GENKERN_BUILD=auto (default) | none (pure Python: the references) | cpu
GENKERN_VECTOR_BYTES=64 overrides the vector width of every level (to test wide code anywhere).
MAX_JOBS limits the parallel compile jobs (default: the number of CPUs).
"""

import os
import platform
import subprocess
import sys
import sysconfig
from glob import glob
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

LEVELS = {
    "baseline": "",
    "avx2": "-mavx2 -mfma -mf16c",
    # GCC 12 warns about uninitialised values inside its own AVX-512 header.
    "avx512": "-mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mf16c -Wno-uninitialized "
    "-Wno-maybe-uninitialized",
}
FLAGS = (
    "-std=c++20 -O3 -fPIC -fvisibility=hidden -fno-math-errno -fno-trapping-math "
    "-ffp-contract=fast -Wall -Wextra -Wno-psabi -DNDEBUG -DTORCH_TARGET_VERSION=0x020b000000000000"
)
RULES = """
ninja_required_version = 1.3
rule compile
  command = $cxx -MMD -MF $out.d $flags -c $in -o $out
  depfile = $out.d
  deps = gcc
rule link
  command = $cxx -shared -s $in -o $out $flags
"""


def build_mode() -> str:
    mode = os.environ.get("GENKERN_BUILD", "auto")
    if mode not in ("auto", "none", "cpu"):
        raise ValueError(f"GENKERN_BUILD must be one of auto, none, cpu; got {mode!r}")
    return mode


def levels() -> list[str]:
    if build_mode() == "none":
        return []
    is_x86 = platform.machine().lower() in ("x86_64", "amd64")
    return list(LEVELS) if is_x86 else ["baseline"]


class NinjaBuild(build_ext):
    """Compiles every level in one ninja run: both cores stay busy, rebuilds are incremental."""

    def build_extensions(self):
        import ninja
        import pybind11
        import torch

        root = Path(torch.__file__).parent
        includes = [
            f"-isystem {root}/include",
            f"-isystem {root}/include/torch/csrc/api/include",
            f"-isystem {pybind11.get_include()}",
            f"-isystem {sysconfig.get_paths()['include']}",
        ]
        objects_dir = Path("build/objects").resolve()
        objects_dir.mkdir(parents=True, exist_ok=True)
        cxx = os.environ.get("CXX", "g++")
        width = os.environ.get("GENKERN_VECTOR_BYTES")
        common = FLAGS + (f" -DGENKERN_VECTOR_BYTES={width}" if width else "")
        lines = [f"builddir = {objects_dir}", f"cxx = {cxx}", RULES]
        for ext in self.extensions:
            level = ext.name.rpartition("_")[2]
            flags = (
                f"{common} {LEVELS[level]} {' '.join(includes)} -DGENKERN_MODULE=_C_{level} "
                f"-DGENKERN_ISA='\"{level}\"'"
            )
            objects = []
            for source in ext.sources:
                objects.append(f"{objects_dir}/{level}/{Path(source).stem}.o")
                lines += [f"build {objects[-1]}: compile {Path(source).resolve()}"]
                lines += [f"  flags = {flags}"]
            target = Path(self.get_ext_fullpath(ext.name)).resolve()
            lines += [f"build {target}: link {' '.join(objects)}"]
            lines += [f"  flags = -L{root}/lib -ltorch_cpu"]
        ninja_file = objects_dir / "build.ninja"
        ninja_file.write_text("\n".join(lines) + "\n")
        jobs = os.environ.get("MAX_JOBS", str(os.cpu_count()))
        command = [f"{ninja.BIN_DIR}/ninja", "-f", str(ninja_file), "-j", jobs]
        if subprocess.run(command).returncode:
            sys.exit("genkern: compiling the C++ ops failed; the compiler's messages stand above")


SOURCES = [*sorted(glob("csrc/cpu/*.cpp")), "csrc/module.cpp"]

setup(
    packages=["genkern"]
    + [f"genkern.{Path(p).parent.name}" for p in sorted(glob("genkern/*/__init__.py"))]
    + ["genkern.triton_kernels"],
    package_dir={"genkern.triton_kernels": "triton_kernels"},
    ext_modules=[Extension(f"genkern._C_{level}", SOURCES) for level in levels()],
    cmdclass={"build_ext": NinjaBuild},
)
