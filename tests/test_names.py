"""What tests.names counts, and what it does not."""

from pathlib import Path

from tests.names import classes_named_twice, counts, report

CODE = """
found = 1
own: int = 2
for one, (seen, row) in rows:
    total += 1
pairs = [given for given in rows if (made := given)]
read = lambda asked: asked.found
def told(whole, *named, kept=found, **others):
    self.known = is_given = taken
try:
    with open(path) as apart, lock:
        pass
except OSError as some:
    pass
match value:
    case {"a": theirs, **shown} | [ours, *wanted]:
        pass
    case both:
        pass
"""
VAGUE = (
    "found own one seen given made read asked whole named kept others apart some theirs shown ours "
    "wanted both"
)


def test_each_binding_of_a_vague_name_counts_and_no_other_use_of_it(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(CODE)
    [(vague, bound)] = counts(tmp_path).values()
    assert vague == dict.fromkeys(VAGUE.split(), 1)
    assert bound - vague.total() == len(["row", "total", "pairs", "is_given"])


def test_folders_are_counted_apart_and_classes_of_one_name_told_with_their_places(
    tmp_path: Path,
) -> None:
    (tmp_path / "eval" / "inner").mkdir(parents=True)
    (tmp_path / "top.py").write_text("class Row:\n    row = 1\nclass Line: ...\n")
    (tmp_path / "eval" / "inner" / "b.py").write_text("found = row = 1\n\nclass Row: ...\n")
    assert {room: bound for room, (_, bound) in counts(tmp_path).items()} == {".": 1, "eval": 2}
    assert classes_named_twice(tmp_path) == {"Row": ["eval/inner/b.py:3", "top.py:1"]}
    lines = [" ".join(line.split()) for line in report(tmp_path)]
    assert lines[1] == "eval 1 of 2 names 50.0 % found 1"
    assert lines[-2] == "together 1 of 3 names 33.3 % found 1"
    assert lines[-1] == "class Row: eval/inner/b.py:3, top.py:1"
