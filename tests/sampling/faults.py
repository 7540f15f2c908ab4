"""Faults of the sampling engine that its tests must find."""

from tests.mutants.fault import Fault

STEPPER, SAMPLE = "tests/sampling/test_stepper.py", "tests/sampling/test_sample.py"
RULES = "tests/sampling/test_rules.py"
TRITON = "tests/sampling/triton.py"

FAULTS = [
    Fault(
        "a ring of rows is one row too short",
        "genkern/sampling/schedule.py",
        "        if (busy[:-rows] < times[rows:]).all():\n            return rows",
        "        if (busy[:-rows] < times[rows:]).all():\n            return max(1, rows - 1)",
        STEPPER,
        "are_those_of_a_full_forward_pass",
        "",
    ),
    Fault(
        "padding reads the last place of a node",
        "genkern/sampling/schedule.py",
        "    at[-1] = count\n",
        "    at[-1] = count - 1\n",
        STEPPER,
        "are_those_of_a_full_forward_pass",
        "",
    ),
    Fault(
        "every image takes the noise of the first",
        "csrc/sampler/cpu.cpp",
        "noise_[c] = draws_.noise[(n * draws_.noise_channels + c) * draws_.grid + place];",
        "noise_[c] = draws_.noise[c * draws_.grid + place];",
        SAMPLE,
        "draws_the_same_images_from_the_same_noise",
    ),
    Fault(
        "a wavefront is one column too steep",
        "genkern/sampling/plan.py",
        "                high = middle\n",
        "                high = middle - (middle > low)\n",
        STEPPER,
        "are_those_of_a_full_forward_pass",
        "",
    ),
    Fault(
        "log p of a softmax is of the last place alone",
        "csrc/sampler/draw.h",
        "  log_p += double(l[x] - largest)",
        "  log_p = double(l[x] - largest)",
        SAMPLE,
        "log_prob_is_minus_the_nll",
    ),
    Fault(
        "all places take the weights of the first",
        "csrc/sampler/engine.h",
        "product.places > 1 ? place_[0] : 0",
        "0",
        RULES,
        "whole_images",
    ),
    Fault(
        "chances of a mixture are those of its first colour",
        "csrc/sampler/chances.h",
        "mixture.template mean<double>(k, known, x);",
        "mixture.template mean<double>(k, 0, x);",
        RULES,
        "chances_in_cpp",
    ),
    Fault(
        "in a GPU's kernels all places take the weights of the first",
        "triton_kernels/sampler/kernels.py",
        "channels = tl.max(place, 0) * PARTS * units",
        "channels = 0 * tl.max(place, 0)",
        TRITON,
        "weights_of_each_place",
    ),
    Fault(
        "in a GPU's kernels a step does not follow the one before it",
        "triton_kernels/sampler/draw.py",
        "tl.store(p_step, step + 1)",
        "tl.store(p_step, step)",
        TRITON,
        "launched_then_captured",
    ),
]
