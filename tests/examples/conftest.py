"""One process for the whole session, from which commands are forked; data that are soon read."""

import pytest
import torch

from examples import data
from tests.examples.few import few_digits
from tests.examples.processes import Server


@pytest.fixture(scope="session")
def server():
    running = Server()
    yield running
    running.close()


@pytest.fixture(autouse=True)
def one_thread():
    """What is small, two threads only hold up; and two workers have two processors."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def few(monkeypatch):
    """The commands of a test find a part of the digits where they ask for all."""
    found, load = few_digits(), data.load

    def given(name, folder=None):
        return found if name == "digits" else load(name, folder)

    monkeypatch.setattr(data, "load", given)
    return found
