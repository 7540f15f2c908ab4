"""Faults of diagonal_lstm that its tests must find."""

from tests.mutants.fault import Fault

DIAGONAL = "tests/diagonal_lstm/values.py"

FAULTS = [
    Fault(
        "odd rows start with state 0",
        "csrc/diagonal_lstm/cpu.cpp",
        "std::copy_n(line + r * L, L, line + this->lines() + r * L);",
        ";",
        DIAGONAL,
        "pixel_by_pixel",
    ),
    Fault(
        "lanes without a unit pass their state on",
        "csrc/diagonal_lstm/diagonal_lstm.h",
        "used ? o * quick_tanh(cell) : Vec<A>{}",
        "o * quick_tanh(cell)",
        DIAGONAL,
        "infinite_states_do_not",
    ),
    Fault(
        "odd rows send nothing to the gradient of their start",
        "csrc/diagonal_lstm/cpu_backward.cpp",
        "std::copy_n(line + lines(), 4 * L, line);",
        ";",
        DIAGONAL,
        "boundaries_of_the_chunks",
    ),
    Fault(
        "the weight's gradient takes the row above from the first row of the chunk",
        "csrc/diagonal_lstm/cpu_backward.cpp",
        "dl::correlate(end - r, s.W, h + (r * pitch()",
        "dl::correlate(end - r, s.W, h + (begin * pitch()",
        DIAGONAL,
        "boundaries_of_the_chunks",
    ),
    Fault(
        "the first image of each further group is skipped in the gradients",
        "csrc/diagonal_lstm/cpu_backward.cpp",
        "n = s.N * g / groups;",
        "n = s.N * g / groups + (g > 0 && s.N > groups);",
        DIAGONAL,
        "boundaries_of_the_chunks",
    ),
]
