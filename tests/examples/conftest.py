"""One process for the whole session, from which commands are forked."""

import pytest

from tests.examples.processes import Server


@pytest.fixture(scope="session")
def server():
    running = Server()
    yield running
    running.close()
