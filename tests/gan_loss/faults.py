"""Faults of gan_loss that its tests must find."""

from tests.mutants.fault import Fault

GAN = "tests/gan_loss/values.py"

FAULTS = [
    Fault(
        "the hinge has a slope at its kink",
        "csrc/gan_loss/gan_loss.h",
        "1 + scale * x <= 0",
        "1 + scale * x < 0",
        GAN,
        "at_its_kink",
    ),
    Fault(
        "one chunk too many for the sums that stay off the heap",
        "csrc/threads.h",
        "chunks > kFew ? std::span(many) : std::span(few).first(chunks)",
        "chunks > kFew + 1 ? std::span(many) : std::span(few).first(chunks)",
        GAN,
        "sizes_around_the_chunks",
    ),
]
