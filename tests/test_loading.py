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
        (
            HEAD + "\ntotal(\n  amuont, '1h')\n",
            ":8: NameError: name 'amuont' is not defined; did you mean 'amount'?",
        ),
        (
            "from streamer import count\ncount('1h', where=atempt > 1)\n",
            ":2: NameError: name 'atempt' is not defined; did you mean 'attempt'?",
        ),
        (
            "from streamer import count\ncount('1h', where=attempt > 1)\n",
            ":2: NameError: name 'attempt' is not defined; import it: from streamer import attempt",
        ),
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


ENTITY = """Entity(
    "merchant",
    features=[
        count("1d"),
        {},
    ],
)
"""


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "count('1x')",
            "entity 'merchant', count: Expected a duration: a positive integer and ms, s, m, h, d",
        ),
        ("since_last('week')", "got 'week'; write for instance \"30d\""),
        ("mean(amount, '1h', delay='soon').before()", "got 'soon'; write for instance \"30d\""),
        ("since_first(unit='y')", "expected a unit of ms, s, m, h, d, got 'y'"),
        ("count('1h', '1d')", "two features are named 'merchant_count_1d'"),
        ("count('1h', where=attempt > 1)", "count with a condition needs a name of its own"),
        ("total(merchant, '1h')", "got 'merchant', which is text; did you mean distinct(merchant, ...)?"),
        (
            "count('1h', where=merchant > 1, name='x')",
            "expected a field of numbers before > 1, got one of text",
        ),
        ("count('1h', where=attempt == '1', name='x')", "field 'attempt': expected a number to compare with"),
        ("distinct(crad, '1h')", "name 'crad' is not defined; did you mean 'card'?"),
        ("distinct(text('amount'), '1h')", "which is a number; write number('amount')"),
    ],
)
def test_a_wrong_feature_is_named_by_its_own_line(tmp_path: Path, line: str, message: str) -> None:
    """Not by that of its entity, which finds the mistake."""
    said = load(tmp_path, HEAD + ENTITY.format(line))
    assert said.startswith(":10: ")
    assert message in said


def test_a_wrong_key_is_named_by_its_entity(tmp_path: Path) -> None:
    """With what it may have meant."""
    said = load(tmp_path, HEAD + "Entity('shop',\n  keys=['mercahnt'], features=[count('1h')])\n")
    assert said.startswith(":6: entity 'shop': payments have no field 'mercahnt'; did you mean 'merchant'?")


@pytest.mark.parametrize(
    ("declared", "line", "message"),
    [
        ("again = Entity('card', features=[count('2h')])", 6, "two entitys are named 'card'"),
        (
            "again = Model('fraud', [cards], linear_model.LogisticRegression())",
            6,
            "two models are named 'fraud'",
        ),
        (
            "size = number('size')\nagain = Entity('merchant', features=[total(size, '1h')])",
            6,
            "got nothing of that name; declare it: source=Source(attributes={'size': float})",
        ),
        (
            "a = number('lat', 2)\nagain = Entity('merchant', features=[total(a, '1h'), total(lat, '1d')])",
            7,
            "entity 'merchant' uses field 'lat' with two types or numbers of decimals",
        ),
        (
            "a = (cards['count_1h'] / 3).named('card_count_1h')\nagain = Model('other', [a], fraud.learner)",
            6,
            "two features are named 'card_count_1h'",
        ),
    ],
)
def test_what_the_topology_finds_is_named_by_its_declaration(
    tmp_path: Path, declared: str, line: int, message: str
) -> None:
    """Not by the line of the topology, which only puts declarations together."""
    end = (
        "models = [fraud] + ([again] if isinstance(again, Model) else [])\n"
        "entities = [again] if isinstance(again, Entity) else []\n"
        "topology = Topology('payments', models, Policy('default', 1), entities=[cards, *entities])\n"
    )
    said = load(tmp_path, f"{HEAD}{declared}\n{end}")
    assert said.startswith(f":{line}: ")
    assert message in said


def test_a_mistake_in_a_helper_file_is_named_by_the_line_that_uses_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line is always one of the topology file itself."""
    (tmp_path / "shared_features.py").write_text("from streamer import *\n\n\nfeatures = [count('1x')]\n")
    monkeypatch.syspath_prepend(tmp_path)
    text = HEAD + "from shared_features import features\nEntity('merchant', features=features)\n"
    assert load(tmp_path, text).startswith(":7: entity 'merchant', count: Expected a duration")


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
