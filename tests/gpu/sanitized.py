"""Small calls of every kernel, on a GPU: what compute-sanitizer watches."""

import torch

import genkern


def randn(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape).to(dtype).requires_grad_()


def gaussian_and_gan_loss(shape: tuple[int, ...]) -> None:
    mu, logvar = randn(*shape), randn(*shape)
    z, kl = genkern.gaussian_kl_rsample(mu, logvar)
    loss = genkern.gan_d_loss(z, mu) + genkern.gan_d_loss(z, mu, kind="rabce")
    (z.sum() + kl.sum() + loss).backward()


def masked_conv2d(dtype: torch.dtype, groups: int, C_in: int, C_out: int) -> None:
    shapes = (3, C_in, 5, 7), (C_out, C_in, 3, 5), (C_out,)
    image, weight, bias = (randn(*shape, dtype=dtype) for shape in shapes)
    for layout in (torch.contiguous_format, torch.channels_last):
        inputs = image.contiguous(memory_format=layout), weight, bias
        genkern.masked_conv2d(*inputs, data_channels=groups).sum().backward()


def row_lstm(dtype: torch.dtype, hidden: int) -> None:
    shapes = (2, 4 * hidden, 5, 35), (4 * hidden, hidden, 3), (2, hidden, 35), (2, hidden, 35)
    h, (_, c_n) = genkern.row_lstm(*(randn(*shape, dtype=dtype) for shape in shapes))
    (h.sum() + c_n.sum()).backward()


if __name__ == "__main__":
    with torch.device("cuda"), genkern.use_backend("triton"):
        for shape in ((3, 5), (2, 130), (1, 9001)):
            gaussian_and_gan_loss(shape)
        for dtype in (torch.float32, torch.bfloat16):
            masked_conv2d(dtype, 1, 1, 5)
            masked_conv2d(dtype, 3, 20, 35)
            row_lstm(dtype, 3)
            row_lstm(dtype, 40)
        torch.cuda.synchronize()
    print("finished")
