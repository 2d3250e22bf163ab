"""The log, and the state that follows from it: after undo, after a kill, after edits from outside."""

import json
from pathlib import Path

import pytest

from contextseg.classes import Classes
from contextseg.errors import ClassesError, RunError
from contextseg.review.actions import Action, Colour, Correct, Hide, Merge, Name, Redo, Undo
from contextseg.review.history import History

START = Classes.numbered(5)
EACH: list[tuple[Action, Classes]] = [
    (Name(id=3, name="sky"), START.rename({3: "sky"})),
    (Colour(id=2, colour=(1, 20, 255)), START.recolour({2: (1, 20, 255)})),
    (Merge(into=1, others=(0, 4)), START.merge(1, [0, 4])),
    (Hide(ids=(2, 3)), START.hide([2, 3])),
    (Correct(image="a.png", point=(7, 2), members=(1, 3), to=4), START),
]


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    START.write(tmp_path / "classes.json")
    return tmp_path / "review/log.jsonl", tmp_path / "classes.json"


def lines(log: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(("action", "after"), EACH, ids=lambda value: type(value).__name__)
def test_each_action_is_kept_undone_and_done_again(files: tuple[Path, Path], action: Action, after: Classes) -> None:
    log, classes = files
    history = History(*files)
    for turn, (entry, expected) in enumerate([(action, after), (Undo(), START), (Redo(), after)]):
        history.record(entry)
        assert history.timeline.classes == Classes.read(classes) == expected
        assert history.timeline.corrections("a.png") == [action] * (isinstance(action, Correct) and turn != 1)
        assert vars(History(*files).timeline) == vars(history.timeline)
    assert [line["action"] for line in lines(log)] == ["take", type(action).__name__.lower(), "undo", "redo"]


def test_the_lines_are_as_documented(files: tuple[Path, Path]) -> None:
    history = History(*files)
    for action, _ in EACH:
        history.record(action)
    assert lines(files[0])[1:] == [
        {"action": "name", "id": 3, "name": "sky"},
        {"action": "colour", "id": 2, "colour": [1, 20, 255]},
        {"action": "merge", "into": 1, "others": [0, 4], "undo": False},
        {"action": "hide", "ids": [2, 3], "undo": False},
        {"action": "correct", "image": "a.png", "point": [7, 2], "from": [1, 3], "to": 4},
    ]


def test_what_was_taken_back_is_gone_after_another_action(files: tuple[Path, Path]) -> None:
    history = History(*files)
    for action in (Name(id=0, name="sky"), Name(id=1, name="sea"), Undo(), Hide(ids=(4,))):
        history.record(action)
    with pytest.raises(ClassesError, match="nothing to redo"):
        history.record(Redo())
    history.record(Undo())
    history.record(Undo())
    with pytest.raises(ClassesError, match="nothing to undo"):
        history.record(Undo())
    assert Classes.read(files[1]) == START


def test_a_merge_and_a_hidden_class_are_taken_back_by_name(files: tuple[Path, Path]) -> None:
    history = History(*files)
    for action in (Merge(into=1, others=(0,)), Hide(ids=(2,)), Merge(into=1, others=(0,), undo=True)):
        history.record(action)
    assert history.timeline.classes == START.hide([2])
    history.record(Hide(ids=(2,), undo=True))
    assert history.timeline.classes == START


def test_what_makes_no_sense_leaves_no_trace(files: tuple[Path, Path]) -> None:
    history = History(*files)
    history.record(Name(id=1, name="sky"))
    before = [file.read_bytes() for file in files]
    for action, message in [
        (Name(id=2, name="sky"), "classes 1 and 2 would both be named 'sky'"),
        (Name(id=9, name="tree"), "there is no class 9"),
        (Merge(into=3, others=(3,)), "cannot become part of itself"),
        (Hide(ids=(-1,)), "there is no class -1"),
    ]:
        with pytest.raises(ClassesError, match=message):
            history.record(action)
    assert [file.read_bytes() for file in files] == before
    assert len(history.timeline.past) == 2


@pytest.mark.parametrize("kept", [1, 17, -2, -1])
def test_a_line_that_a_kill_left_unfinished_is_ignored(files: tuple[Path, Path], kept: int) -> None:
    log, classes = files
    History(*files).record(Name(id=0, name="sky"))
    whole = log.read_bytes()
    # The order of writing is classes.json, then the log: a kill in between leaves the old classes nowhere.
    with log.open("ab") as file:
        file.write(b'{"action":"name","id":1,"name":"sea"}\n'[:kept])
    history = History(*files)
    assert log.read_bytes() == whole
    assert Classes.read(classes) == history.timeline.classes == START.rename({0: "sky"})
    history.record(Name(id=2, name="road"))
    assert vars(History(*files).timeline) == vars(history.timeline)


def test_a_kill_between_the_two_files_loses_nothing(files: tuple[Path, Path]) -> None:
    log, classes = files
    History(*files).record(Name(id=0, name="sky"))
    before = log.read_bytes()
    History(*files).record(Merge(into=0, others=(1,)))
    log.write_bytes(before + b'{"action":"me')
    history = History(*files)
    assert history.timeline.classes == Classes.read(classes) == START.rename({0: "sky"}).merge(0, [1])
    history.record(Undo())
    assert Classes.read(classes) == START.rename({0: "sky"})


def test_edits_from_outside_are_taken_in_and_can_be_undone(files: tuple[Path, Path]) -> None:
    history = History(*files)
    history.record(Name(id=0, name="sky"))
    Classes.read(files[1]).rename({4: "car"}).write(files[1])  # as `contextseg name` does, while the page is open
    history.record(Name(id=1, name="sea"))
    assert Classes.read(files[1]) == START.rename({0: "sky", 1: "sea", 4: "car"})
    assert [line["action"] for line in lines(files[0])] == ["take", "name", "take", "name"]
    history.record(Undo())
    history.record(Undo())
    assert Classes.read(files[1]) == START.rename({0: "sky"})


def test_two_reviews_of_one_run_follow_each_other(files: tuple[Path, Path]) -> None:
    one, other = History(*files), History(*files)
    one.record(Correct(image="a.png", point=(0, 0), members=(1,), to=2))
    one.record(Name(id=0, name="sky"))
    other.record(Undo())
    assert Classes.read(files[1]) == START
    assert len(other.timeline.corrections("a.png")) == 1
    one.record(Undo())
    assert one.timeline.corrections("a.png") == []


@pytest.mark.parametrize(
    "line", ["{", '{"action": "paint"}', '{"action": "undo", "more": 1}', '{"action": "hide", "ids": [77]}']
)
def test_a_log_that_was_edited_wrongly(files: tuple[Path, Path], line: str) -> None:
    History(*files).record(Name(id=0, name="sky"))
    with files[0].open("a") as file:
        file.write(line + "\n")
    with pytest.raises(RunError, match=r"log\.jsonl, line 3: makes no sense"):
        History(*files)
