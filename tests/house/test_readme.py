"""The README's Python blocks run, in order, as one program."""

import re
from pathlib import Path

README = (Path(__file__).parents[2] / "README.md").read_text()


def test_python_blocks_run():
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.S)
    assert len(blocks) >= 7
    names: dict = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert names["h"].shape == (16, 16, 28, 28) and names["kl"].shape == (128,)


def test_every_public_op_and_module_is_in_the_table():
    import genkern

    for name in genkern.__all__:
        assert f"`{name}`" in README or f"genkern.{name}" in README, name
    for name in genkern.nn.__all__:
        assert f"`nn.{name}`" in README, name
