"""Topology files: found, run, and refused in one line that says where they are wrong."""

from pathlib import Path

import pytest

from streamer.errors import TopologyError
from streamer.loading import DEFAULT, load_topology, locate

HEAD = """from river import linear_model
from streamer import *

cards = Entity("card", features=[count("1h")])
fraud = Model("fraud", [cards], linear_model.LogisticRegression())
"""
GOOD = HEAD + 'topology = Topology("payments", [fraud], Policy("default", 1))\n'


def load(tmp_path: Path, text: str | bytes) -> str:
    """What loading a file of this text fails with, the path of the file cut off."""
    file = tmp_path / "wrong.py"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(TopologyError) as refused:
        load_topology(file)
    message = str(refused.value)
    assert message.startswith(str(file))
    assert "\n" not in message
    return message.removeprefix(str(file))


def test_a_file_defines_a_topology(tmp_path: Path) -> None:
    """The one topology of the file comes back, under whatever name, and may have two of them."""
    file = tmp_path / "good.py"
    file.write_text(GOOD + "main = topology\n")
    assert load_topology(file).name == "payments"


def test_two_loads_agree(tmp_path: Path) -> None:
    """A file gives the same declarations each time, by objects of its own."""
    file = tmp_path / "good.py"
    file.write_text(GOOD)
    one, other = load_topology(file), load_topology(file)
    assert one is not other
    assert one.fingerprint == other.fingerprint


def test_the_default_is_valid() -> None:
    """The topology that comes with the package loads."""
    assert load_topology(DEFAULT).name == "payments"


def test_no_file(tmp_path: Path) -> None:
    """A path that leads nowhere, or to a directory, is named."""
    for path in (tmp_path / "absent.py", tmp_path):
        with pytest.raises(TopologyError, match="there is no topology file") as refused:
            locate(path)
        assert str(path) in str(refused.value)


def test_a_file_that_is_no_python(tmp_path: Path) -> None:
    """Only files that end in .py are run."""
    file = tmp_path / "topology.toml"
    file.write_text("")
    with pytest.raises(TopologyError, match=r"name one that ends in \.py"):
        load_topology(file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\ntopology = Topology(\n", ":2: SyntaxError: '(' was never closed"),
        ("\n\n  x = 1\n", ":3: IndentationError: unexpected indent"),
        (GOOD + "\nblok(fraud > 0.5)\n", ":8: NameError: name 'blok' is not defined"),
        ("from streamer import Topolgy\n", ":1: ImportError: cannot import name 'Topolgy'"),
        ("import nowhere_to_be_found\n", ":1: ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ("\n{}['windows']\n", ":2: KeyError: 'windows'"),
        ("raise ValueError('one\\ntwo')\n", ":1: ValueError: one two"),
        ("raise ValueError\n", ":1: ValueError"),
        ("import sys\nsys.exit('stop')\n", ":2: SystemExit: stop"),
        (HEAD + "\n\nreview(cards['count_2h'] > 1)\n", ":8: entity 'card' has no feature 'count_2h'"),
        (
            HEAD + "def rule():\n    return block(fraud > 2)\nrule()\n",
            ":7: model 'fraud': expected a threshold",
        ),
        (HEAD + "Entity('card', features=[\n  count('1x'),\n])\n", ":6: "),
        (HEAD, " defines 0 topologies; expected one: `topology = Topology(...)`"),
        (
            GOOD + 'again = Topology("payments", [fraud], Policy("default", 1))\n',
            " defines 2 topologies; expected one",
        ),
    ],
)
def test_an_error_names_its_line(tmp_path: Path, text: str, message: str) -> None:
    """Whatever goes wrong in the file: one line with the file, the line in it, and what it was."""
    assert load(tmp_path, text).startswith(message)


def test_a_relative_path_names_its_line_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line does not depend on how the file was named."""
    monkeypatch.chdir(tmp_path)
    Path("wrong.py").write_text("\n\nblok\n")
    Path("broken.py").write_text("\n(\n")
    for name, line in (("wrong.py", 3), ("broken.py", 2), ("../" + tmp_path.name + "/wrong.py", 3)):
        with pytest.raises(TopologyError) as refused:
            load_topology(Path(name))
        assert str(refused.value).startswith(f"{name}:{line}: ")


@pytest.mark.parametrize("text", [b"name = '\xff'\n", b"x = 1\0\n"])
def test_bytes_that_are_no_source(tmp_path: Path, text: bytes) -> None:
    """A file that Python cannot read as text is an error of that file."""
    assert load(tmp_path, text).startswith(":")
