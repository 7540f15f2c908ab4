"""compress and decompress: every bit comes back, in the bytes that the model's likelihood says."""

import math
import re

import numpy as np
import pytest
import torch
from PIL import Image

from examples import registry
from examples.cli import main
from examples.compression import codec, container, files, others
from examples.model import DataSpec
from genkern import sampling
from tests.examples.test_examples import make

CODED = [name for name, entry in registry.MODELS.items() if entry.exact]
CODED = [
    name
    for name in CODED
    if not registry.model_class(name).own_steps
    and registry.model_class(name).condition in ("", "class")
]
GREY, RGB = DataSpec((1, 4, 5), 5, 2), DataSpec((3, 3, 2), 256, 2)


def given(model, count: int = 6):
    """Noise, and the extremes, which a model finds unlikely."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(model.spec.levels, (count, *model.spec.shape), generator=generator)
    images[0], images[1] = 0, model.spec.levels - 1
    return images.to(torch.uint8), torch.arange(count) % 2 if model.condition else None


@pytest.mark.parametrize("name", CODED)
@pytest.mark.parametrize("spec", [GREY, RGB], ids=["grey", "rgb"])
def test_every_bit_comes_back_and_takes_what_the_likelihood_says(name, spec):
    model = make(name, spec).eval()
    images, labels = given(model)
    words, method = codec.encode(model, images, labels, method="auto", batch=4)
    assert method == sampling.last_report().method != "auto"
    found = codec.decode(model, words, count=6, method=method, batch=4)
    assert found.dtype == torch.uint8 and torch.equal(found, images)
    bits = model.nll(images, labels).sum().item() / math.log(2)
    bits += 6 if labels is not None else 0  # of two classes
    assert bits / 8 <= len(words) <= 1.01 * bits / 8 + 12


def test_another_word_is_another_image():
    model = make("pixel_cnn", GREY).eval()
    images, _ = given(model)
    words, method = codec.encode(model, images, None, method="naive", batch=6)
    damaged = bytes([words[0] ^ 1]) + words[1:]
    assert not torch.equal(codec.decode(model, damaged, count=6, method=method, batch=6), images)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "pixel_cnn"
    line = "train pixel_cnn --steps 2 --batch-size 8 --set hidden=8 blocks=1 --out"
    assert main([*line.split(), str(out)]) == 0
    return out


def test_commands_bring_back_the_test_split_and_refuse_what_is_not_theirs(run, tmp_path, capsys):
    coded, out = tmp_path / "images.gkc", tmp_path / "images.npy"
    line = ["compress", "pixel_cnn", "--run", str(run), "--num", "5", "--out", str(coded)]
    back = ["decompress", "pixel_cnn", "--run", str(run), "--input", str(coded), "--out", str(out)]
    assert main(line) == 0
    said = capsys.readouterr().out
    assert all(word in said for word in ("PNG, one picture", "WebP, a file each", "-log p(x)"))
    assert main(back) == 0
    images = np.load(out)
    assert images.shape == (5, 1, 8, 8)
    assert main([*line[:-1], str(tmp_path / "again.gkc"), "--images", str(out)]) == 0
    assert (tmp_path / "again.gkc").read_bytes() == coded.read_bytes()

    content = coded.read_bytes()
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 4
        with pytest.raises(Exception, match=r"damaged|not a file of `compress`"):
            container.unpack(coded, bytes(damaged))
    coded.write_bytes(content[:-1])
    assert main(back) == 2 and "is damaged" in capsys.readouterr().err
    coded.write_bytes(content)
    model = files.opened("pixel_cnn", run)
    header, _ = container.unpack(coded, content)
    container.check_model(coded, header, model)
    with torch.no_grad():
        next(model.parameters())[0, 0, 0, 0] += 1e-6
    with pytest.raises(Exception, match="compressed with another model: its weights have the hash"):
        container.check_model(coded, header, model)
    other = header._replace(model=container.fingerprint(model), arithmetic=b"none")
    with pytest.raises(Exception, match="compressed by other arithmetic"):
        container.check_model(coded, other, model)


@pytest.mark.parametrize(
    "words, text",
    [
        ("compress made", "--run takes the folder of a run"),
        ("compress vae --run RUN", "it has no exact likelihood"),
        ("compress pixel_cnn --run RUN --num 0", "--num takes an integer from 1"),
        ("compress pixel_cnn --run RUN --method jacobi", "--method takes auto, naive"),
        ("compress pixel_cnn --run RUN --images NOTHING.npy", "no such file"),
        (
            "compress pixel_cnn --run RUN --images WRONG.npy",
            r"to 16; got .*int64 \(2, 3\)",
        ),
        ("compress pixel_cnn --run RUN --out x.png", "--out takes a .gkc file that can be"),
        ("decompress pixel_cnn --run RUN", "--input takes a .gkc file; got .*no such file"),
        ("decompress pixel_cnn --run RUN --input WRONG.gkc", "is not a file of `compress`"),
    ],
)
def test_wrong_lines(words, text, run, tmp_path, capsys):
    np.save(tmp_path / "WRONG.npy", np.zeros((2, 3), np.int64))
    (tmp_path / "WRONG.gkc").write_bytes(b"PNG")
    places = {"RUN": str(run)} | {
        name: str(tmp_path / name) for name in ("NOTHING.npy", "WRONG.npy", "WRONG.gkc")
    }
    assert main([places.get(word, word) for word in words.split()]) == 2
    assert re.search(text, capsys.readouterr().err)


def test_other_formats_hold_every_pixel():
    for C in (1, 3):
        images = torch.randint(256, (5, C, 6, 4), dtype=torch.uint8)
        assert others.sheet(images).shape == (C, 12, 12)
        found = others.sizes(images)
        assert set(found) == {"PNG", "WebP"} and all(a < b for a, b in found.values())


def test_a_film_shows_both_methods_and_their_images_are_equal(run, tmp_path, capsys):
    out, gif = tmp_path / "x.png", tmp_path / "x.gif"
    line = ["sample", "pixel_cnn", "--run", str(run), "--num", "2", "--out", str(out)]
    assert main([*line, "--film", str(gif)]) == 0
    assert re.search(r"x\.gif: .* naive .*, 100.00% of the levels", capsys.readouterr().out)
    with Image.open(gif) as opened:
        assert opened.n_frames > 10
        first = np.asarray(opened.convert("RGB"), dtype=int)
        opened.seek(opened.n_frames - 1)
        assert (np.asarray(opened.convert("RGB"), dtype=int) != first).any()
    assert main([*line, "--film", "x.png"]) == 2
    assert "--film takes a .gif file" in capsys.readouterr().err
