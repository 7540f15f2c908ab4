"""Three builds of the ops; `genkern.library` loads the best one for the CPU.

The ops are libraries without Python, `genkern/_ops_<level>.so`, that torch loads; `genkern._engine`
is the one module of Python. A file `csrc/<family>/*.cpp` needs no entry here.

GENKERN_BUILD=auto (default) | none (pure Python: the references) | cpu
GENKERN_BUILD_LEVELS=avx2,small builds these levels alone; "all" is every one, with "small", for
tests: blocks of a few elements. Left out: every level but that.
GENKERN_BUILD_SYMBOLS=1 keeps their symbols, for `python -m benchmarks profile`.
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
LEVELS["small"] = f"{LEVELS['avx2']} -DGENKERN_SMALL_BLOCKS -D_GLIBCXX_ASSERTIONS"
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
rule precompile
  command = $cxx -MMD -MF $out.d $flags -x c++-header $in -o $out
  depfile = $out.d
  deps = gcc
rule link
  command = $cxx -shared $in -o $out $flags
"""


def build_mode() -> str:
    mode = os.environ.get("GENKERN_BUILD", "auto")
    if mode not in ("auto", "none", "cpu"):
        raise ValueError(f"GENKERN_BUILD must be one of auto, none, cpu; got {mode!r}")
    return mode


def levels() -> list[str]:
    if build_mode() == "none":
        return []
    known = list(LEVELS) if is_x86() else ["baseline", "small"]
    chosen = os.environ.get("GENKERN_BUILD_LEVELS") or ",".join(known[:-1])
    names = known if chosen == "all" else chosen.split(",")
    if unknown := set(names).difference(known):
        raise ValueError(
            f"GENKERN_BUILD_LEVELS must be all, or levels of {', '.join(known)}; "
            f"got {', '.join(sorted(unknown))}"
        )
    return names


def is_x86() -> bool:
    return platform.machine().lower() in ("x86_64", "amd64")


def sources() -> tuple[list[str], list[str]]:
    """Those of the ops, compiled for every level, and those of the Python module."""
    found = sorted(glob("csrc/**/*.cpp", recursive=True))
    return [s for s in found if s != "csrc/module.cpp"], ["csrc/module.cpp"]


def extensions() -> list[Extension]:
    ops, engine = sources()
    if not levels():
        return []
    libraries = [Extension(f"genkern._ops_{level}", ops) for level in levels()]
    return [*libraries, Extension("genkern._engine", engine)]


class NinjaBuild(build_ext):
    """Compiles everything in one ninja run: both cores stay busy, rebuilds are incremental."""

    def get_ext_filename(self, fullname):
        name = super().get_ext_filename(fullname)
        if "_ops_" not in fullname:
            return name
        return name.partition(".")[0] + ".so"  # one file for every version of Python

    def build_extensions(self):
        import ninja

        objects = Path("build/objects").resolve()
        objects.mkdir(parents=True, exist_ok=True)
        lines = [f"builddir = {objects}", f"cxx = {os.environ.get('CXX', 'g++')}", RULES]
        for ext in self.extensions:
            lines += self.edges(ext, objects / ext.name.rpartition("_")[2])
        ninja_file = objects / "build.ninja"
        ninja_file.write_text("\n".join(lines) + "\n")
        jobs = os.environ.get("MAX_JOBS", str(os.cpu_count()))
        command = [f"{ninja.BIN_DIR}/ninja", "-f", str(ninja_file), "-j", jobs]
        if subprocess.run(command).returncode:
            sys.exit("genkern: compiling the C++ ops failed; the compiler's messages stand above")

    def edges(self, ext: Extension, folder: Path) -> list[str]:
        """The ninja lines of one library."""
        compile_flags, link_flags = flags(folder.name)
        lines, objects, after = [], [], ""
        if folder.name in LEVELS:
            # Found beside the header that a file includes first: half of what a small file costs.
            header, precompiled = folder / "bind.h", folder / "bind.h.gch"
            folder.mkdir(exist_ok=True)
            text = f'#include "{Path("csrc/bind.h").resolve()}"\n'
            if not header.exists() or header.read_text() != text:
                header.write_text(text)
            lines += [f"build {precompiled}: precompile {header}", f"  flags = {compile_flags}"]
            compile_flags += f" -include {header} -Winvalid-pch"
            after = f" | {precompiled}"
        for source in ext.sources:
            objects.append(str(folder / Path(source).relative_to("csrc").with_suffix(".o")))
            lines += [f"build {objects[-1]}: compile {Path(source).resolve()}{after}"]
            lines += [f"  flags = {compile_flags}"]
        target = Path(self.get_ext_fullpath(ext.name)).resolve()
        return [*lines, f"build {target}: link {' '.join(objects)}", f"  flags = {link_flags}"]


def flags(part: str) -> tuple[str, str]:
    """To compile and to link a level, or the Python module "engine"."""
    import pybind11
    import torch

    if part == "engine":
        headers = pybind11.get_include(), sysconfig.get_paths()["include"]
        return " ".join([FLAGS, *(f"-isystem {h}" for h in headers)]), "-s"
    root = Path(torch.__file__).parent
    headers = f"{root}/include", f"{root}/include/torch/csrc/api/include"
    width = os.environ.get("GENKERN_VECTOR_BYTES")
    forced = [f"-DGENKERN_VECTOR_BYTES={width}"] if width else []
    chosen = LEVELS[part] if is_x86() else LEVELS[part].replace(LEVELS["avx2"], "")
    symbols = os.environ.get("GENKERN_BUILD_SYMBOLS") == "1"
    debug = ["-g"] if symbols else []
    words = [FLAGS, chosen, *forced, *debug, *(f"-isystem {h}" for h in headers)]
    return " ".join(words), f"{'' if symbols else '-s '}-L{root}/lib -ltorch_cpu"


setup(
    packages=[
        ".".join(Path(p).parent.parts)
        for p in sorted(glob("genkern/**/__init__.py", recursive=True))
    ]
    + ["genkern.triton_kernels"]
    + [
        f"genkern.triton_kernels.{Path(p).parent.name}"
        for p in sorted(glob("triton_kernels/*/__init__.py"))
    ],
    package_dir={"genkern.triton_kernels": "triton_kernels"},
    ext_modules=extensions(),
    cmdclass={"build_ext": NinjaBuild},
)
