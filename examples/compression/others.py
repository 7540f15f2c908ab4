"""What general image formats make of the same images."""

import io
import math

import numpy as np
import torch
from PIL import Image

FORMATS = {
    "PNG": {"format": "PNG", "optimize": True},
    "WebP": {"format": "WEBP", "lossless": True, "quality": 100, "method": 6},
}


def sizes(images: torch.Tensor) -> dict[str, tuple[int, int]]:
    """Format to bytes: of all images in one picture, and of a file for each."""
    return {
        name: (size(sheet(images), options), sum(size(image, options) for image in images))
        for name, options in FORMATS.items()
    }


def sheet(images: torch.Tensor) -> torch.Tensor:
    """Images (N, C, H, W) side by side in about a square (C, H', W'): one header for all."""
    count, C, H, W = images.shape
    columns = math.ceil(math.sqrt(count * H / W))
    empty = images.new_zeros(-count % columns, C, H, W)
    grid = torch.cat([images, empty]).unflatten(0, (-1, columns))
    return grid.permute(2, 0, 3, 1, 4).reshape(C, -1, columns * W)


def size(image: torch.Tensor, options: dict) -> int:
    """Bytes of a file of one image (C, H, W), checked to give back every pixel."""
    pixels = image.permute(1, 2, 0).contiguous().numpy()
    pixels = pixels[:, :, 0] if len(image) == 1 else pixels
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, **options)
    opened = np.asarray(Image.open(buffer).convert("RGB"))
    assert np.array_equal(opened, np.asarray(Image.fromarray(pixels).convert("RGB"))), options
    return len(buffer.getvalue())
