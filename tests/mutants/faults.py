"""Faults put into the sources one at a time, each with the tests that must fail because of it.

Most of them, or their like, once survived the whole suite: where only a second block, a counter
beyond 2^32 or a value at a kink shows a fault.
"""

from typing import NamedTuple


class Fault(NamedTuple):
    name: str
    file: str
    old: str  # stands in the file exactly once
    new: str
    path: str
    test: str  # a part of its name
    level: str = "small"  # of the ops that the tests run on; "" if they compile what they need


CONV = "tests/masked_conv2d/values.py"
PARTS = "bands_and_parts"
FORMS = "tests/masked_conv2d/test_forms.py"
LSTM = "tests/row_lstm/values.py"
GAN = "tests/gan_loss/values.py"
GAUSSIAN = "tests/gaussian/values.py"
VECMATH = "tests/core/test_vecmath.py"
RING = "boundaries_of_the_ring"

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
    Fault(
        "elements at the free-bits floor lose their gradient",
        "csrc/gaussian/gaussian.h",
        "A(0.5) * (u * u + e.minus_x) < free_bits",
        "A(0.5) * (u * u + e.minus_x) <= free_bits",
        GAUSSIAN,
        "at_their_floor",
    ),
    Fault(
        "the hinge has a slope at its kink",
        "csrc/gan_loss/gan_loss.h",
        "1 + scale * x <= 0",
        "1 + scale * x < 0",
        GAN,
        "at_its_kink",
    ),
    Fault(
        "Philox's high counter word is zero",
        "csrc/core/philox.h",
        "c1[odd] = c0[odd] >> 32;",
        "c1[odd] = VecQ{};",
        VECMATH,
        "baseline",
        "",
    ),
    Fault(
        "uniform numbers start at 0",
        "csrc/core/philox.h",
        "const Twin<VecF> u = to_float(to_signed(a >> 1)) * 0x1p-31f + 0x1p-32f;",
        "const Twin<VecF> u = to_float(to_signed(a >> 1)) * 0x1p-31f + 0.0f;",
        VECMATH,
        "baseline",
        "",
    ),
    Fault(
        "uniform numbers start at 0, in both precisions",
        "csrc/core/philox.h",
        "0x1p-31f + 0x1p-32f;",
        "0x1p-31f + 0.0f;",
        VECMATH,
        "baseline",
        "",
    ),
    Fault(
        "one chunk too many for the sums that stay off the heap",
        "csrc/threads.h",
        "chunks > kFew ? std::span(many) : std::span(few).first(chunks)",
        "chunks > kFew + 1 ? std::span(many) : std::span(few).first(chunks)",
        GAN,
        "sizes_around_the_chunks",
    ),
    Fault(
        "sigmoid keeps what is below the normal numbers",
        "csrc/core/vecmath.h",
        "return x < -87.3f ? VecF{} : y;",
        "return y;",
        VECMATH,
        "baseline",
        "",
    ),
    Fault(
        "half precision rounds to infinity too late",
        "csrc/core/simd.h",
        "if (magnitude >= 0x477FF000u)",
        "if (magnitude >= 0x47810000u)",
        VECMATH,
        "baseline",
        "",
    ),
    Fault(
        "the noise's gradient is not written where nothing depends on it",
        "csrc/gaussian/cpu.cpp",
        "if (needs_eps && !d_z.has_value()) d_eps = new_zeros_like(*in.eps);",
        "if (needs_eps && !d_z.has_value()) d_eps = new_large(*in.eps, in.eps->sizes());",
        GAUSSIAN,
        "of_its_own_sample",
    ),
    Fault(
        "every sample takes the upstream gradient of the first",
        "csrc/gaussian/cpu.cpp",
        "d_z.at(drawn, count, d_z_buffer.data)",
        "d_z.at(e, count, d_z_buffer.data)",
        GAUSSIAN,
        "of_its_own_sample",
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
