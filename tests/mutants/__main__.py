"""python -m tests.mutants [word ...]: every fault must fail the tests named beside it.

Each one is compiled into a copy under build/mutants: the objects that its file goes into, linked
with the other objects of the last build, which GENKERN_BUILD_LEVELS=all must have made. Words
choose faults by their names, or by the folder of their tests. Prints a line a fault; exits with 1
if any survives.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests.mutants.fault import Fault, all_faults

ROOT = Path(__file__).parents[2]
OBJECTS, COPY = ROOT / "build/objects", ROOT / "build/mutants"


def ninja(*arguments: str) -> str:
    import ninja

    command = [f"{ninja.BIN_DIR}/ninja", "-f", str(OBJECTS / "build.ninja"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True).stdout


def compile_commands(level: str) -> dict[str, list[str]]:
    """The commands of a level's objects, by object, without the precompiled header."""
    found = {}
    for line in ninja("-t", "commands").splitlines():
        words = shlex.split(line)
        if "-c" in words and f"{OBJECTS}/{level}/" in words[-1]:
            if "-include" in words:
                at = words.index("-include")
                del words[at : at + 3]  # the header, and the warning that follows it
            found[words[-1]] = words
    return found


def files_of(objects: list[str]) -> dict[str, set[str]]:
    """What each object was compiled from, the precompiled header's files included."""
    files: dict[str, set[str]] = {}
    current = ""
    for line in ninja("-t", "deps").splitlines():
        if line.startswith("    "):
            files[current].add(os.path.abspath(line.strip()))
        elif line:
            current = line.partition(":")[0]
            files[current] = set()
    headers = {name: found for name, found in files.items() if name.endswith(".gch")}
    for name in objects:
        for header, found in headers.items():
            if header in files[name] or Path(header).parent in Path(name).parents:
                files[name] |= found
    return files


def copy_tree() -> None:
    shutil.rmtree(COPY, ignore_errors=True)
    ignore = shutil.ignore_patterns("__pycache__")
    for part in ("csrc", "genkern", "triton_kernels", "tests", "benchmarks", "examples"):
        shutil.copytree(ROOT / part, COPY / part, ignore=ignore)
    (COPY / "genkern/triton_kernels").symlink_to(COPY / "triton_kernels")  # as an install has it
    for part in ("pyproject.toml", "setup.py"):
        shutil.copy(ROOT / part, COPY)


def build(fault: Fault) -> str:
    """Compiles and links the level anew; the compiler's messages if that fails."""
    if not fault.level:
        return ""
    commands = compile_commands(fault.level)
    files, objects, running = files_of(list(commands)), [], []
    for name, words in commands.items():
        if str(ROOT / fault.file) not in files[name]:
            objects.append(name)
            continue
        objects.append(str(COPY / Path(name).relative_to(OBJECTS).as_posix().replace("/", "_")))
        words = [w.replace(f"{ROOT}/csrc", f"{COPY}/csrc") for w in words]
        depfile = words.index("-MMD")
        del words[depfile : depfile + 3]
        running.append(
            subprocess.Popen([*words[:-1], objects[-1]], stderr=subprocess.PIPE, text=True)
        )
    messages = [process.communicate()[1] for process in running]
    if any(process.returncode for process in running):
        return "\n".join(messages)
    if running:
        compiler, library = next(iter(commands.values()))[0], f"_ops_{fault.level}.so"
        line = next(x for x in ninja("-t", "commands").splitlines() if f"{library} " in x)
        flags = re.findall(r"\s(-[Ll]\S+)", line)
        target = COPY / "genkern" / library
        target.unlink()  # not written into: a process may still have it open
        subprocess.run([compiler, "-shared", "-s", *objects, "-o", target, *flags], check=True)
    return ""


def fails(faults: list[Fault]) -> tuple[bool, str]:
    """Whether any of the copy's tests that these faults name fails, and the end of its output."""
    paths, names = sorted({f.path for f in faults}), sorted({f.test for f in faults})
    level, tests = faults[0].level, [*paths, "-k", " or ".join(names)]
    environment = os.environ | {"PYTHONPATH": str(COPY)}
    if level:
        environment["GENKERN_CPU_ISA"] = level
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    command += ["-m", "deep or not deep"]  # some of the tests are too long for `make test`
    result = subprocess.run(
        [*command, *tests],
        cwd=COPY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    if result.returncode in (2, 3, 4, 5):  # interrupted, internal error, usage, nothing collected
        raise RuntimeError(f"{tests}: {result.stdout[-2000:]}{result.stderr[-2000:]}")
    return result.returncode != 0, result.stdout[-2000:]


def survives(fault: Fault) -> str:
    """What is wrong with the fault: it does not apply, compile, or fail its tests."""
    path = COPY / fault.file
    text = path.read_text()
    in_both = fault.name.endswith("in both precisions")
    if text.count(fault.old) != (2 if in_both else 1):
        return f"does not apply: {text.count(fault.old)} places in {fault.file}"
    path.write_text(text.replace(fault.old, fault.new))
    try:
        messages = build(fault)
        if messages:
            return f"does not compile:\n{messages[-2000:]}"
        return "" if fails([fault])[0] else "SURVIVES"
    finally:
        path.write_text(text)
        if fault.level:
            shutil.copy(ROOT / f"genkern/_ops_{fault.level}.so", COPY / "genkern")


def chosen_by(word: str, fault: Fault) -> bool:
    return word in fault.name or fault.path.startswith(f"tests/{word}/")


def main(words: list[str]) -> int:
    chosen = [f for f in all_faults() if not words or any(chosen_by(word, f) for word in words)]
    copy_tree()
    bad = 0
    for level in sorted({f.level for f in chosen}):
        failed, text = fails([f for f in chosen if f.level == level])
        if failed:
            print(f"fails without any fault: {text}")
            return 1
    for fault in chosen:
        begin = time.monotonic()
        problem = survives(fault)
        bad += bool(problem)
        seconds = time.monotonic() - begin
        print(f"{problem or 'killed'}: {fault.name} ({seconds:.0f} s)", flush=True)
    print(f"{len(chosen)} faults, {bad} problems")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
