"""Faults of masked_linear that its tests must find."""

from tests.mutants.fault import Fault

LINEAR = "tests/masked_linear/values.py"

FAULTS = [
    Fault(
        "a row of a tile ends with the row before it",
        "csrc/masked_linear/masked_linear.h",
        "std::min(end, length[kFirst]); l < stop",
        "std::min(end, length[0]); l < stop",
        LINEAR,
        "blocks_of_rows",
    ),
    Fault(
        "strict stairs are those of the other comparison",
        "csrc/masked_linear/masked_linear.h",
        "(!strict && column_degrees",
        "(column_degrees",
        LINEAR,
        "exactly_the_inputs",
    ),
    Fault(
        "the step where a row ends is not packed for the gradient of the input",
        "csrc/masked_linear/cpu.cpp",
        "live = std::min(end, s.length[r]) - l;",
        "live = std::min(end, s.length[r] - 1) - l;",
        LINEAR,
        "blocks_of_rows",
    ),
    Fault(
        "dead weights keep the gradient of the tile's other rows",
        "csrc/masked_linear/cpu.cpp",
        "const int64_t live = outputs.length[row + m];",
        "const int64_t live = std::min(I, outputs.length[row + m] + 1);",
        LINEAR,
        "get_no_gradient",
    ),
    Fault(
        "the batch's later parts overwrite the sums of the weight's gradient",
        "csrc/masked_linear/masked_linear.h",
        "A* to = sums + m * sums_row + v * kLanes<A>;\n      store(to, load(to) + sum[m][v]);",
        "A* to = sums + m * sums_row + v * kLanes<A>;\n      store(to, sum[m][v]);",
        LINEAR,
        "blocks_of_rows",
    ),
]
