"""One process for submissions serves all tests of a worker."""

import pytest

from gemm_lessons.grading.runner import Runner


@pytest.fixture(scope="session")
def runner():
    running = Runner("sim")
    yield running
    running.close()
