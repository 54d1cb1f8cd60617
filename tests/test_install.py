"""The installer chooses the right wheels, and does its work once."""

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
spec = importlib.util.spec_from_file_location("install", ROOT / "tools" / "install.py")
install = importlib.util.module_from_spec(spec)
spec.loader.exec_module(install)


@pytest.mark.parametrize(
    ("target", "system", "driver", "wanted", "extras"),
    [
        ("demo", "Linux", None, [], []),
        ("demo", "Linux", (12, 4), [], ["cu12"]),
        ("demo", "Linux", (13, 1), [], ["cu13"]),
        ("demo", "Darwin", None, [], []),
        ("test", "Linux", None, [], ["cu13", "dev"]),  # the compile gate needs a compiler, not a GPU
        ("test", "Linux", (12, 0), [], ["cu12", "dev"]),
        ("test", "Darwin", None, [], ["dev"]),
        ("lab", "Windows", None, [], ["lab"]),
        ("gpu", "Linux", (13, 0), ["peers"], ["cu13", "dev", "peers"]),
    ],
)
def test_extras(target, system, driver, wanted, extras):
    assert install.choose_extras(target, system, driver, wanted) == extras


@pytest.fixture
def commands(monkeypatch):
    ran = []
    monkeypatch.setattr(install, "run", lambda command, failure: ran.append(command))
    return ran


def test_work_is_done_once_and_extras_add_up(tmp_path, commands):
    install.install(tmp_path, ["dev"])
    assert [command[-1] for command in commands] == [str(tmp_path), ".[dev]"]
    commands.clear()
    install.install(tmp_path, ["dev"])
    assert commands == []
    install.install(tmp_path, ["lab"])
    assert commands[-1][-1] == ".[dev,lab]"
    commands.clear()
    install.install(tmp_path, [])
    assert commands == []


def test_new_dependencies_are_installed(tmp_path, commands, monkeypatch):
    install.install(tmp_path, [])
    commands.clear()
    monkeypatch.setattr(install, "fingerprint", lambda: "another pyproject.toml")
    install.install(tmp_path, [])
    assert commands[-1][-1] == "."


def test_a_failure_leaves_no_stamp(tmp_path, monkeypatch):
    def fail(command, failure):
        raise install.InstallError(failure)

    monkeypatch.setattr(install, "run", fail)
    with pytest.raises(install.InstallError, match="venv"):
        install.install(tmp_path / "venv", [])
    assert install.read_stamp(tmp_path / "venv") == {}


def test_a_broken_stamp_is_no_stamp(tmp_path):
    (tmp_path / install.STAMP).write_text("{")
    assert install.read_stamp(tmp_path) == {}
    (tmp_path / install.STAMP).write_text(json.dumps({"extras": []}))
    assert install.read_stamp(tmp_path) == {"extras": []}
