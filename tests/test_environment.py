"""environment.yml asks for what pyproject.toml asks for; every dependency has an upper bound."""

import re
import tomllib
from itertools import chain
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA_NAMES = {"ml-dtypes": "ml_dtypes", "matplotlib": "matplotlib-base"}


def parse(requirement: str) -> tuple[str, frozenset[str]]:
    """Name and bounds of a requirement, markers and extras left out."""
    name, bounds = re.fullmatch(r"([\w.-]+)(?:\[\w+\])?([^;]*)(?:;.*)?", requirement.strip()).groups()
    return CONDA_NAMES.get(name, name), frozenset(
        bound.strip() for bound in bounds.split(",") if bound.strip()
    )


def test_environment_equals_pyproject():
    wanted = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
    wanted += [*PROJECT["optional-dependencies"]["lab"], f"python{PROJECT['requires-python']}"]
    lines = re.findall(r"^  - ([^#\n]+)", (ROOT / "environment.yml").read_text(), re.MULTILINE)
    conda = dict(parse(line) for line in lines if line.strip() not in ("conda-forge", "pip"))
    assert conda == dict(map(parse, wanted))


def test_every_dependency_is_bounded():
    extras = PROJECT["optional-dependencies"].values()
    for requirement in (*PROJECT["dependencies"], *chain.from_iterable(extras)):
        _, bounds = parse(requirement)
        assert any(bound.startswith(">=") for bound in bounds), requirement
        assert any(bound.startswith("<") for bound in bounds), requirement


def test_numpy_is_one_that_numba_cuda_can_import():
    assert "numpy>=1.26,<2.5" in PROJECT["dependencies"]
