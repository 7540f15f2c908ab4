"""Paths, checked for what they will be used for before anything is built or written."""

import os
from pathlib import Path

from examples.errors import reason, wrong

CHECKPOINT, LOG, LOCK = "checkpoint.pt", "log.jsonl", ".lock"


def readable(option: str, text: str, takes: str) -> Path:
    """A path that the system can be asked about."""
    path = Path(text)
    if not text:
        raise wrong(option, takes, text)
    try:
        text.encode("utf-8")
        path.lstat()
    except UnicodeEncodeError:
        raise wrong(option, takes, text, "not UTF-8") from None
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:
        note = reason(error) if isinstance(error, OSError) else str(error)
        raise wrong(option, takes, text, note) from None
    return path


def _writable(option: str, text: str, takes: str, folder: Path) -> None:
    """``folder`` is there, or can be made, and can be written to."""
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise wrong(option, takes, text, f"{place} is a file")
    if not os.access(place, os.W_OK | os.X_OK):
        raise wrong(option, takes, text, f"{place} is read-only")


def folder_to_write(option: str, text: str) -> Path:
    takes = "a folder that can be written"
    path = readable(option, text, takes)
    if path.name in ("", "..") and not path.is_dir():
        raise wrong(option, takes, text)
    _writable(option, text, takes, path)
    return path


def folder_to_read(option: str, text: str) -> Path:
    takes = "a folder"
    path = readable(option, text, takes)
    if not path.is_dir():
        raise wrong(option, takes, text, "it is a file" if path.exists() else "no such folder")
    return path


def picture_to_write(option: str, text: str) -> Path:
    return file_to_write(option, text, ".png")


def file_to_write(option: str, text: str, suffix: str) -> Path:
    takes = f"a {suffix} file that can be written"
    path = readable(option, text, takes)
    if path.suffix.lower() != suffix:
        raise wrong(option, takes, text)
    if path.is_dir():
        raise wrong(option, takes, text, "it is a folder")
    _writable(option, text, takes, path.parent)
    return path


def film_to_write(text: str | None) -> Path | None:
    return None if text is None else file_to_write("--film", text, ".gif")


def file_to_read(option: str, text: str, suffix: str) -> Path:
    takes = f"a {suffix} file"
    path = readable(option, text, takes)
    if path.suffix.lower() != suffix:
        raise wrong(option, takes, text)
    if not path.is_file():
        raise wrong(option, takes, text, "it is a folder" if path.is_dir() else "no such file")
    if not os.access(path, os.R_OK):
        raise wrong(option, takes, text, "it cannot be read")
    return path


def run_to_read(option: str, text: str) -> Path:
    """The folder of a run that has a checkpoint."""
    takes = f"the folder of a run, with its {CHECKPOINT}"
    path = readable(option, text, takes)
    if not (path / CHECKPOINT).is_file():
        raise wrong(option, takes, text, f"there is no checkpoint {path / CHECKPOINT}")
    return path
