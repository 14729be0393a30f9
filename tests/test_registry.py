"""Names, plug-ins, and what is said when a name is wrong."""

from __future__ import annotations

import time
from importlib.metadata import EntryPoint

import pytest
from threads import in_threads

from voxplain.errors import ConfigError, VoxplainWarning, nearest
from voxplain.registry import Registry


class Apple: ...


class Pear: ...


@pytest.fixture
def fruits() -> Registry[object]:
    found: Registry[object] = Registry("fruit", "voxplain.no_such_group")
    found.add("pear", Pear)
    found.add("apple", Apple)
    return found


def test_entries(fruits: Registry[object]) -> None:
    assert fruits.get("apple") is Apple
    assert list(fruits) == ["apple", "pear"]
    assert len(fruits) == 2


def test_wrong_names(fruits: Registry[object]) -> None:
    with pytest.raises(ConfigError, match=r"unknown fruit 'appel'; did you mean apple\?"):
        fruits.get("appel")
    with pytest.raises(ConfigError, match="unknown fruit 'xyz'; known: apple, pear"):
        fruits.get("xyz")


def test_a_name_belongs_to_one_class(fruits: Registry[object]) -> None:
    fruits.add("pear", Pear)
    with pytest.raises(ConfigError, match="two fruits are named 'pear'; rename one of them"):
        fruits.add("pear", Apple)


def test_plug_ins_are_loaded_at_the_first_lookup(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []

    class Point(EntryPoint):
        def load(self) -> object:
            loaded.append(self.name)
            return fruits.add("fig", Apple)

    point = Point("fig", "somewhere:Fig", "voxplain.fruits")
    monkeypatch.setattr(
        "voxplain.registry.entry_points",
        lambda group: [point] if group == "voxplain.fruits" else [],
    )
    fruits: Registry[object] = Registry("fruit", "voxplain.fruits")
    assert not loaded
    assert fruits.get("fig") is Apple
    assert list(fruits) == ["fig"]
    assert loaded == ["fig"]


def test_a_broken_plug_in_is_one_warning_and_leaves_the_others(
    monkeypatch: pytest.MonkeyPatch, fruits: Registry[object]
) -> None:
    class Good(EntryPoint):
        def load(self) -> object:
            return fruits.add("fig", Apple)

    class Taken(EntryPoint):
        def load(self) -> object:
            return fruits.add("pear", Apple)

    points = [
        EntryPoint("plum", "no_such_package.plums:Plum", "voxplain.no_such_group"),
        Taken("pear", "somewhere:Pear", "voxplain.no_such_group"),
        Good("fig", "somewhere:Fig", "voxplain.no_such_group"),
    ]
    monkeypatch.setattr("voxplain.registry.entry_points", lambda group: points)
    with pytest.warns(VoxplainWarning) as caught:
        assert list(fruits) == ["apple", "fig", "pear"]
    assert [str(one.message).partition(", for")[0] for one in caught] == [
        "the fruit 'plum' of the package no_such_package.plums:Plum is left out",
        "the fruit 'pear' of the package somewhere:Pear is left out",
    ]
    assert "No module named 'no_such_package'" in str(caught[0].message)
    assert fruits.get("pear") is Pear
    list(fruits)
    assert len(caught) == 2


def test_what_is_there_is_found_without_loading_plug_ins(
    monkeypatch: pytest.MonkeyPatch, fruits: Registry[object]
) -> None:
    """A module may look up a method while the package is still being imported."""

    def refuse(group: str) -> list[EntryPoint]:
        raise AssertionError("plug-ins are not asked for yet")

    monkeypatch.setattr("voxplain.registry.entry_points", refuse)
    assert fruits.get("pear") is Pear


def test_nearest() -> None:
    known = ["saliency", "guided_backprop", "deconvolution", "integrated_gradients"]
    assert nearest("saliancy", known) == "did you mean saliency?"
    assert nearest("integrated_gradient", known).startswith("did you mean integrated_gradients")
    assert nearest("zzz", known) == "known: " + ", ".join(sorted(known))
    assert nearest("zzz", []) == "there are none"
    assert nearest("q", [f"name{index:02}" for index in range(20)]).endswith("name11, …")


def test_a_thread_waits_for_plug_ins_that_another_one_loads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Slow(EntryPoint):
        def load(self) -> object:
            time.sleep(0.05)
            return fruits.add("fig", Apple)

    point = Slow("fig", "somewhere:Fig", "voxplain.fruits")
    monkeypatch.setattr("voxplain.registry.entry_points", lambda **_: [point])
    fruits: Registry[object] = Registry("fruit", "voxplain.fruits")
    assert in_threads([lambda: fruits.get("fig")] * 3) == [Apple] * 3
