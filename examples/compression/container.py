"""The file of `compress`: what it was made with, the coder's words, and a sum over all of it."""

import hashlib
import platform
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import torch

import genkern
from examples.autoregressive.raster import RasterModel
from examples.errors import UsageError

MAGIC = b"gkc\x01"
LAYOUT = struct.Struct("<4sBHI8s4sI")
SUM_BYTES = 8
METHODS = ("naive", "incremental", "wavefront")  # numbers in files: only add at the end


class Header(NamedTuple):
    """What a file says before its words.

    Args:
        method: of `genkern.sampling.METHODS`: which bits the probabilities have.
        batch: images that were coded together.
        count: images.
        model: `fingerprint`.
        arithmetic: `arithmetic`.
        content: CRC-32 of the images.
    """

    method: str
    batch: int
    count: int
    model: bytes
    arithmetic: bytes
    content: int


def fingerprint(model: RasterModel) -> bytes:
    """Of the class, the data and every weight: another model gives other probabilities."""
    content = hashlib.sha256(f"{type(model).__qualname__} {model.spec}".encode())
    for name, tensor in sorted(model.state_dict().items()):
        content.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        content.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return content.digest()[:8]


def arithmetic_words() -> str:
    """What decides how the sums of a network are rounded."""
    isa = genkern.library.compiled.isa if genkern.library.compiled else "reference"
    return (
        f"genkern {genkern.__version__} ({isa}), torch {torch.__version__} "
        f"({torch.backends.cpu.get_cpu_capability()}), {platform.machine()}"
    )


def arithmetic() -> bytes:
    return hashlib.sha256(arithmetic_words().encode()).digest()[:4]


def content_sum(images: torch.Tensor) -> int:
    return zlib.crc32(images.contiguous().numpy())


def pack(header: Header, words: bytes) -> bytes:
    fixed = MAGIC, METHODS.index(header.method), header.batch, header.count
    content = LAYOUT.pack(*fixed, header.model, header.arithmetic, header.content) + words
    return content + hashlib.sha256(content).digest()[:SUM_BYTES]


def unpack(path: Path, content: bytes) -> tuple[Header, bytes]:
    """The header and the words of a file that is whole.

    Raises:
        UsageError: it is no such file, or a byte of it is another.
    """
    if len(content) < LAYOUT.size + SUM_BYTES or content[: len(MAGIC)] != MAGIC:
        raise UsageError(f"{path} is not a file of `compress`, or only its beginning")
    body, sum_ = content[:-SUM_BYTES], content[-SUM_BYTES:]
    if hashlib.sha256(body).digest()[:SUM_BYTES] != sum_:
        raise UsageError(f"{path} is damaged: its content has another SHA-256 than it carries")
    _, method, batch, count, model, arithmetic, crc = LAYOUT.unpack_from(body)
    if method >= len(METHODS):
        raise UsageError(f"{path} was written by a later version: method {method}")
    header = Header(METHODS[method], batch, count, model, arithmetic, crc)
    return header, body[LAYOUT.size :]


def check_model(path: Path, header: Header, model: RasterModel) -> None:
    """The model and the arithmetic are those that the file was written with.

    Raises:
        UsageError: says which is not; the file could be decoded to other images only.
    """
    own = fingerprint(model)
    if header.model != own:
        raise UsageError(
            f"{path} was compressed with another model: its weights have the hash "
            f"{header.model.hex()}, those of this run {own.hex()}"
        )
    if header.arithmetic != arithmetic():
        raise UsageError(
            f"{path} was compressed by other arithmetic, which rounds probabilities otherwise; "
            f"here it is {arithmetic_words()}"
        )
