"""The table that games, agents and evaluations are registered in: names, duplicates, "module:name"."""

import sys

import pytest

from mlbits.agents import AGENTS, AgentEntry
from mlbits.envs import registry
from mlbits.envs.core.errors import GameError, MlbitsError, UnknownIdError
from mlbits.envs.origins import import_module, import_name
from mlbits.envs.registry_table import Registry
from mlbits.evals import EVALS
from mlbits.evals.registry import EvalEntry


@pytest.fixture
def fruit():
    return Registry("fruit", {"pear": 1, "apple": 2})


def test_it_is_a_mapping_in_the_order_of_registration(fruit):
    assert fruit.register("banana", 3)
    fruit["acerola"] = 4
    assert list(fruit.items()) == [("pear", 1), ("apple", 2), ("banana", 3), ("acerola", 4)]
    assert fruit.get("plum") is None
    assert fruit.get("pear") == 1
    assert "plum" not in fruit
    assert fruit.pop("plum", 0) == 0


def test_an_unknown_name_is_refused_with_the_nearest(fruit):
    for find in (fruit.__getitem__, fruit.check):
        with pytest.raises(UnknownIdError, match=r"^unknown fruit 'aple'; did you mean 'apple'"):
            find("aple")
        with pytest.raises(KeyError, match=r"^unknown fruit 'zzzz'; known: apple, pear$"):
            find("zzzz")


def test_a_name_is_given_once(fruit):
    with pytest.raises(GameError, match=r"^name: the fruit 'pear' is already registered; wanted another name$"):
        fruit.register("pear", 5, "orchard")
    assert not fruit.register("pear", 1, "orchard")  # a notebook's cell that is run again
    assert fruit["pear"] == 1
    assert fruit.module("pear") == ""


@pytest.mark.parametrize("name", ["", "a b", "orchard:plum", "-plum", ":", "a\tb"])
def test_a_name_is_a_word_that_no_module_or_flag_is(fruit, name):
    with pytest.raises(GameError, match=r"^name: got .*; wanted one without spaces, ':' or a '-' in front$"):
        fruit.register(name, 5)
    assert len(fruit) == 2


def test_the_module_of_ones_own_is_kept_and_forgotten_with_the_name(fruit):
    fruit.register("plum", 3, "orchard")
    assert (fruit.module("plum"), fruit.module("pear"), fruit.module("none")) == ("orchard", "", "")
    assert fruit.check("orchard:plum") == "plum"  # known: nothing is imported
    del fruit["plum"]
    assert fruit.module("plum") == ""
    with pytest.raises(GameError, match=r"^orchard:plum: the module 'orchard' cannot be imported"):
        fruit.check("orchard:plum")


def test_a_copy_is_changed_alone(fruit):
    other = fruit.copy()
    other.register("plum", 3, "orchard")
    assert (list(fruit), fruit.module("plum")) == (["pear", "apple"], "")
    fruit["fig"] = 4
    assert (list(other), other.module("plum")) == (["pear", "apple", "plum"], "orchard")
    with pytest.raises(UnknownIdError, match="unknown fruit 'appl'"):
        other.check("appl")


def test_a_module_is_imported_for_a_name_that_it_registers(fruit, tmp_path, monkeypatch):
    (tmp_path / "orchard_of_mine.py").write_text("import sys\nsys.basket.register('plum', 3, __name__)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "basket", fruit, raising=False)
    with pytest.raises(GameError, match=r"^orchard_of_mine:plum: the module 'orchard_of_mine' cannot be imported"):
        fruit.check("orchard_of_mine:plum", [str(tmp_path)])  # a file may name any folder; only the user's own count
    assert fruit.check("orchard_of_mine:plum") == "plum"
    assert fruit.module("plum") == "orchard_of_mine"
    with pytest.raises(UnknownIdError, match="unknown fruit 'plumm'; did you mean 'plum'"):
        fruit.check("orchard_of_mine:plumm")


def test_all_three_registries_are_such_tables():
    for table, name in ((registry._entries, "mlbits/GridWorld-v1"), (AGENTS, "pp0"), (EVALS, "gridworl")):
        assert isinstance(table, Registry)
        with pytest.raises(MlbitsError, match="did you mean"):
            table[name]
        assert all(table.module(known) == "" for known in table if not known.startswith("test/"))


@pytest.mark.parametrize("name", [3, None, "", "a b", "a:b", "-a"])
def test_a_malformed_name_is_refused(fruit, name):
    with pytest.raises(GameError, match=r"^name: got .*; wanted one without spaces"):
        fruit.register(name, 5)


def test_what_an_entry_names_and_is_not_there_is_said_in_a_line(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "half_written.py").write_text("def broken(:\n")
    for module, name, message in (
        ("half_written", "x", r"cannot be imported: invalid syntax in .*half_written.py, line 1"),
        ("not_there_at_all", "x", r"cannot be imported \(No module named"),
        ("json", "no_such_name", "the module 'json' has no 'no_such_name'"),
    ):
        with pytest.raises(GameError, match=message):
            import_name(module, name)
        with pytest.raises(GameError, match=message):
            AgentEntry(module, name, name, "").config_class()
        with pytest.raises(GameError, match=message):
            EvalEntry(f"{module}:{name}", "").load()
    with pytest.raises(GameError, match=r"invalid syntax in .*, line 1"):
        import_module("half_written")
