"""`profile`: where the time of a case goes, by the function of the C++ sources that an instruction
was written in, after inlining. Linux's `perf` samples the clock of all threads.

It wants ops that were built with `GENKERN_BUILD_SYMBOLS=1`: the same code, not stripped.
"""

import bisect
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from benchmarks.core import cpu
from benchmarks.core.case import Case
from benchmarks.core.gate import Trial

SECONDS, PER_SECOND = 3.0, 2000
# Wrappers of one instruction say nothing about what it is for.
WRAPPERS = re.compile(r"(simd|scalar|bf16_pairs)\.h$|/include/|\?\?$|<built-in>")
SOURCE = re.compile(r"csrc/(.+)$")


class NoProfile(Exception):
    """What is missing for a profile."""


def _mappings() -> list[tuple[int, int, int, str]]:
    """(start, end, offset in the file, file) of what is mapped into this process, in order."""
    found = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[5].startswith("/"):
            start, end = (int(word, 16) for word in fields[0].split("-"))
            found.append((start, end, int(fields[2], 16), fields[5]))
    return sorted(found)


def _samples(call: Callable, seconds: float) -> tuple[list[int], int, float]:
    """Addresses that the threads were at, and how many calls that took how long."""
    if shutil.which("perf") is None:
        raise NoProfile("profile: needs Linux's perf (package linux-perf)")
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/perf.data"
        options = ["-e", "cpu-clock", "-F", str(PER_SECOND), "-p", str(os.getpid()), "-o", file]
        perf = subprocess.Popen(["perf", "record", "-q", *options], stderr=subprocess.DEVNULL)
        time.sleep(0.5)  # until it is attached
        calls, start = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - start) < seconds:
            call()
            calls += 1
        perf.send_signal(signal.SIGINT)
        perf.wait()
        script = ["perf", "script", "-i", file, "-F", "ip"]
        text = subprocess.run(script, capture_output=True, text=True).stdout
    found = [int(line, 16) for line in text.split()]
    if not found:
        raise NoProfile("profile: perf took no sample; see /proc/sys/kernel/perf_event_paranoid")
    return found, calls, elapsed


def _chains(library: str, addresses: Sequence[int]) -> Iterator[list[tuple[str, str]]]:
    """Of each address the functions it was inlined into, from the innermost, with their files."""
    words = "\n".join(hex(a) for a in addresses)
    command = ["addr2line", "-a", "-f", "-i", "-C", "-e", library]
    text = subprocess.run(command, input=words, capture_output=True, text=True).stdout
    for block in re.split(r"^0x[0-9a-f]+\n", text, flags=re.MULTILINE)[1:]:
        lines = block.splitlines()
        yield list(zip(lines[::2], lines[1::2], strict=False))


def _short(function: str) -> str:
    """A name without namespaces, templates and arguments; of a lambda, where it stands."""
    plain = function
    if function.startswith("_Z"):  # what addr2line cannot demangle: <length><name> ...
        rest = re.sub(r"^_Z+N", "", function)
        while found := re.match(r"\d+", rest):
            end = found.end() + int(found[0])
            plain, rest = rest[found.end() : end], rest[end:]
    while plain != (shorter := re.sub(r"<[^<>]*>|\([^()]*\)|\[[^\[\]]*\]", "", plain)):
        plain = shorter
    names = re.findall(r"\w+", re.sub(r"\{lambda\S*?\}|\b(operator|const|auto)\b", " ", plain))
    return names[-1] if names else function


def _part(chain: Sequence[tuple[str, str]]) -> str:
    """The innermost function that is more than a wrapper: "row_lstm/panels.h: pack"."""
    for function, place in chain:
        file = os.path.normpath(place.rpartition(":")[0])
        source = SOURCE.search(file)
        if source and not WRAPPERS.search(file):
            return f"{source[1]}: {_short(function)}"
    return "ops, no symbols"


def _parts(addresses: Sequence[int]) -> Counter:
    maps = _mappings()
    starts = [m[0] for m in maps]
    parts: Counter = Counter()
    ops: Counter = Counter()
    library = ""
    for address, count in Counter(addresses).items():
        at = bisect.bisect_right(starts, address) - 1
        inside = at >= 0 and address < maps[at][1]
        name = Path(maps[at][3]).name if inside else "the kernel of Linux (page faults, scheduling)"
        if inside and name.startswith("_ops_"):
            library = maps[at][3]
            ops[address - maps[at][0] + maps[at][2]] += count
        else:
            parts["torch" if name.startswith(("libtorch", "libc10")) else name] += count
    if library:
        places = list(ops)
        for place, chain in zip(places, _chains(library, places), strict=True):
            parts[_part(chain)] += ops[place]
    return parts


def profile(case: Case, phase: str, dtype: torch.dtype, seconds: float = SECONDS) -> list[str]:
    """Lines of a table: parts by their share, with ms of a call and ns of an element.

    Raises:
        NoProfile: perf or symbols are missing.
    """
    cpu.settle()
    trial = Trial(case, phase, dtype, torch.device("cpu"), 0)
    call = trial.bind("genkern", case.genkern)
    trial.check("genkern", call)
    addresses, calls, elapsed = _samples(call, seconds)
    parts = _parts(addresses)
    if parts["ops, no symbols"] > len(addresses) / 2:
        raise NoProfile("profile: the ops have no symbols; build with GENKERN_BUILD_SYMBOLS=1")
    milliseconds = 1e3 * elapsed / calls
    lines = [
        f"**{case.label} {phase}**: {milliseconds:.3g} ms a call, {calls} calls, "
        f"{len(addresses)} samples of {torch.get_num_threads()} threads",
        "",
        "| part | % of the samples | ms |",
        "|---|---|---|",
    ]
    for name, count in parts.most_common():
        share = count / len(addresses)
        if share >= 0.01:
            lines.append(f"| `{name}` | {100 * share:.1f} | {share * milliseconds:.3g} |")
    return lines
