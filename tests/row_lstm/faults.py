"""Faults of row_lstm that its tests must find."""

from tests.mutants.fault import Fault

LSTM = "tests/row_lstm/values.py"
RING = "boundaries_of_the_ring"

FAULTS = [
    Fault(
        "lanes without a unit get a gradient",
        "csrc/row_lstm/row_lstm.h",
        "store(d_gates + L, used ? d_f : Vec<A>{});",
        "store(d_gates + L, d_f);",
        LSTM,
        "infinite_state_leaves",
    ),
    Fault(
        "saved cells of panels without units are not written",
        "csrc/row_lstm/cpu.cpp",
        "std::fill_n(saved_cell + used, unused, A(0));",
        "",
        LSTM,
        "everything_that_is_saved",
    ),
    Fault(
        "saved gates of panels without units are not written",
        "csrc/row_lstm/cpu.cpp",
        "std::fill_n(saved_gates + 4 * used, 4 * unused, A(0));",
        "",
        LSTM,
        "everything_that_is_saved",
    ),
    Fault(
        "the boundary row of the ring is lost, images apart",
        "csrc/row_lstm/backward.h",
        "if (d_weight) add(begin + 1, std::min(end + 1, s.H));\n        }",
        "if (d_weight) add(begin + 1, std::min(end, s.H));\n        }",
        LSTM,
        RING,
    ),
    Fault(
        "the boundary row of the ring is lost, images together",
        "csrc/row_lstm/backward.h",
        "if (d_weight) add(begin + 1, std::min(end + 1, s.H));\n      }",
        "if (d_weight) add(begin + 1, std::min(end, s.H));\n      }",
        LSTM,
        RING,
    ),
    Fault(
        "the boundary row is overwritten: a group of one row too many",
        "csrc/row_lstm/backward.h",
        "end - (ring.slots() - 1));\n          for (int64_t r",
        "end - ring.slots());\n          for (int64_t r",
        LSTM,
        RING,
    ),
    Fault(
        "the first image of a later group is skipped in the weight's gradient",
        "csrc/row_lstm/backward.h",
        "correlate(ring, count * g / groups,",
        "correlate(ring, count * g / groups + (g > 0 && count > groups),",
        LSTM,
        RING,
    ),
    Fault(
        "the first image of each further batch is skipped in the weight's gradient",
        "csrc/row_lstm/backward.h",
        "correlate(ring, count * g / groups,",
        "correlate(ring, count * g / groups + (g == 0 && first > 0),",
        LSTM,
        RING,
    ),
]
