"""Seeds, and the Philox4x32-10 stream that every backend draws its noise from.

Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", sec. 3.3.
"""

import math

import torch

_MULTIPLIER = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_MASK = 0xFFFFFFFF


def draw_seed(device: torch.device, generator: torch.Generator | None = None) -> torch.Tensor:
    """A seed tensor (1,), int64, on ``device``, from torch's generator; never read on the host."""
    return torch.randint(
        -(2**63), 2**63 - 1, (1,), dtype=torch.int64, device=device, generator=generator
    )


def _multiply(a: int, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    # 32 x 32 -> 64 bits in int64 arithmetic, in two halves so that nothing exceeds 2^63.
    low = a * (b & 0xFFFF)
    high = a * (b >> 16)
    middle = (low >> 16) + (high & 0xFFFF)
    return (high >> 16) + (middle >> 16), ((middle & 0xFFFF) << 16) | (low & 0xFFFF)


def philox_words(seed: torch.Tensor, count: int) -> torch.Tensor:
    """The first ``count`` 32-bit words of the stream of ``seed``, as int64.

    Element e is word e % 4 of the block with counter e // 4.
    """
    counter = torch.arange((count + 3) // 4, dtype=torch.int64, device=seed.device)
    c0, c1 = counter & _MASK, counter >> 32
    c2, c3 = torch.zeros_like(c0), torch.zeros_like(c0)
    k0, k1 = seed & _MASK, (seed >> 32) & _MASK
    for _ in range(10):
        high0, low0 = _multiply(_MULTIPLIER[0], c0)
        high1, low1 = _multiply(_MULTIPLIER[1], c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return torch.stack([c0, c1, c2, c3], dim=1).flatten()[:count]


def philox_normal(seed: torch.Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    r"""Standard normals by Box-Muller on word pairs (a, b) of the stream.

    .. math:: r = \sqrt{-2 \log u},\; u = 2^{-31} fl(\lfloor a / 2 \rfloor) + 2^{-32},\;
              \theta = \pi 2^{-31} fl(int32(b)); \quad (r \cos\theta, r \sin\theta)

    fl rounds to float32. The first normal of a pair takes the even element, the second the odd.
    """
    count = math.prod(shape)
    words = philox_words(seed, (count + 3) // 4 * 4).view(-1, 2)
    a, b = words[:, 0], words[:, 1]
    u = ((a >> 1).float() * 2.0**-31 + 2.0**-32).double()
    theta = torch.where(b >= 2**31, b - 2**32, b).float().double() * (math.pi * 2.0**-31)
    radius = torch.sqrt(-2.0 * torch.log(u))
    pairs = torch.stack([radius * torch.cos(theta), radius * torch.sin(theta)], dim=1)
    return pairs.flatten()[:count].view(shape).to(dtype)


def philox_uniform(seed: torch.Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Uniform numbers in (0, 1]: u = 2^-31 fl(word >> 1) + 2^-32 of each word, in float32."""
    words = philox_words(seed, math.prod(shape))
    return ((words >> 1).float() * 2.0**-31 + 2.0**-32).view(shape).to(dtype)
