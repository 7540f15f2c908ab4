"""Faults of masked_conv2d that its tests must find."""

from tests.mutants.fault import Fault

CONV = "tests/masked_conv2d/values.py"
PARTS = "bands_and_parts"
FORMS = "tests/masked_conv2d/test_forms.py"

FAULTS = [
    Fault(
        "a 1x1 kernel always sees an image as one row",
        "csrc/masked_conv2d/cpu.cpp",
        "s.kernel_w == 1 && (images.is_one_row(s.width) && ...)",
        "s.kernel_w == 1 && ((void(images), true) && ...)",
        CONV,
        "rows_of_a_1x1_kernel",
    ),
    Fault(
        "no room behind scratch for a tile's last registers",
        "csrc/bind.h",
        "size_t(count) * sizeof(E) + 2 * core::kVectorBytes",
        "size_t(count) * sizeof(E)",
        CONV,
        PARTS,
    ),
    Fault(
        "every image of a masked convolution lands on the first",
        "csrc/masked_conv2d/convolve.h",
        "to.at(n, block.start,",
        "to.at(0, block.start,",
        CONV,
        PARTS,
        "avx2",
    ),
    Fault(
        "a band reads one row too few above it",
        "csrc/masked_conv2d/packing.h",
        "area.y_begin - margins.above)",
        "area.y_begin - margins.above + 1)",
        CONV,
        PARTS,
    ),
    Fault(
        "the last part of the weight's gradient is left out",
        "csrc/masked_conv2d/packing.h",
        "for (int64_t part = 0; part < parts; ++part)",
        "for (int64_t part = 0; part + 1 < parts; ++part)",
        CONV,
        PARTS,
        "avx2",
    ),
    Fault(
        "pixels of the last two registers of a run count twice",
        "csrc/masked_conv2d/one_channel.h",
        "for (int64_t i = L - (pixels - p); i < L; ++i)",
        "for (int64_t i = 0; i < L; ++i)",
        CONV,
        PARTS,
    ),
    Fault(
        "the kernel that ends before the pixel ends on it",
        "csrc/masked_conv2d/masked_conv2d.h",
        "mask == MaskType::left_before ? kernel_w : kernel_w / 2",
        "mask == MaskType::left_before ? kernel_w - 1 : kernel_w / 2",
        FORMS,
        "published",
    ),
    Fault(
        "colours lie across the parts of the output",
        "csrc/masked_conv2d/cpu.cpp",
        "data_channels > 1 ? parts : 1",
        "parts > 0 ? 1 : 1",
        FORMS,
        "parts_are_convolutions",
    ),
    Fault(
        "a narrow window is copied from the start of its register",
        "csrc/masked_conv2d/one_channel.h",
        "all.at(n, c, y, area.x_begin)",
        "all.at(n, c, y, wide.x_begin)",
        FORMS,
        "every_pixel",
    ),
    Fault(
        "rows of a window of an image that is one row lie on one another",
        "csrc/masked_conv2d/cpu.cpp",
        "line.data += y * (to.y - s.width);",
        "line.data -= y * s.width;",
        FORMS,
        "every_pixel",
    ),
    Fault(
        "one channel is taken for channels_last",
        "genkern/spec.py",
        "image.stride(1) == 1 and image.shape[1] > 1",
        "image.stride(1) == 1",
        CONV,
        "one_channel",
        "",
    ),
]
