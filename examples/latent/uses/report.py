"""What a use has to say: lines, printed as they come, and pictures with a word on each."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from examples.harness import checkpoint
from examples.paths import CHECKPOINT


class Report:
    """What one use has said so far.

    Args:
        out: folder of the pictures.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.lines: list[str] = []
        self.pictures: list[tuple[Path, str]] = []

    def say(self, line: str) -> None:
        print(line, flush=True)
        self.lines.append(line)

    def picture(self, name: str, caption: str) -> Path:
        """Where the picture is to be written."""
        self.out.mkdir(parents=True, exist_ok=True)
        path = self.out / f"{name}.png"
        self.pictures.append((path, caption))
        return path

    def row(self, use: str, runs: Sequence[Path]) -> dict[str, Any]:
        """What the page keeps; it names the pictures itself."""
        configs = [checkpoint.load(run / CHECKPOINT)["config"] for run in runs]
        return {
            "use": use,
            "models": ", ".join(config.model for config in configs),
            "data": configs[0].data,
            "lines": self.lines,
            "pictures": [],
        }
