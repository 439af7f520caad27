"""Which stages share a submission, and what each submission waits for."""

from dataclasses import dataclass
from itertools import pairwise

from harness.run.slurm.grouping import Group, Id, Place, groups


@dataclass(frozen=True)
class FakeStage:
    stage: str
    key: str


def group_rows(
    needed: dict[str, list[str]],
    kinds: dict[str, str] | None = None,
    queued: dict[str, Place] | None = None,
) -> list[Group[FakeStage]]:
    """`needed`: of each stage, written STAGE-KEY, those that must end before it."""
    queued = queued or {}
    stages = [FakeStage(*name.split("-")) for name in needed]
    ids: dict[str, Id] = {n: (n.split("-")[0], n.split("-")[1]) for n in [*needed, *queued]}
    return groups(
        stages,
        {ids[name]: [ids[n] for n in before] for name, before in needed.items()},
        {ids[name]: (kinds or {}).get(name, "cpu") for name in needed},
        {ids[name]: place for name, place in queued.items()},
    )


def names(group: Group[FakeStage]) -> dict[int, str]:
    return {index: f"{s.stage}-{s.key}" for index, s in group.tasks.items()}


def test_rows_of_one_shape_are_an_array_a_stage_each_waiting_for_its_own_row_alone() -> None:
    chain = ["gen", "train", "answer", "judge"]
    needed = {f"gen-{r}": [] for r in range(60)}
    for before, stage in pairwise(chain):
        needed |= {f"{stage}-{r}": [f"{before}-{r}"] for r in range(60)}
    made = group_rows(needed)
    assert [len(g.tasks) for g in made] == [60] * 4
    assert [g.each_after for g in made] == [None, -1, -2, -3]
    for stage, group in zip(chain, made, strict=True):
        assert names(group) == {r: f"{stage}-{r}" for r in range(60)}


def test_a_row_that_lacks_a_stage_leaves_a_gap_in_the_array_of_what_follows() -> None:
    needed = {"train-a": [], "train-b": [], "train-c": []}
    needed |= {"answer-a": ["train-a"], "answer-c": ["train-c"]}
    _, answers = group_rows(needed)
    assert names(answers) == {0: "answer-a", 2: "answer-c"}
    assert answers.each_after == -1


def test_several_that_wait_for_one_stage_are_one_array_after_it() -> None:
    needed = {"answer-a": [], **{f"judge-{n}": ["answer-a"] for n in range(3)}}
    answers, judgings = group_rows(needed)
    assert not answers.is_array
    assert len(judgings.tasks) == 3
    assert judgings.after == {Place(-1, None)}
    assert judgings.each_after is None


def test_replicates_of_many_rows_are_an_array_a_replicate() -> None:
    needed: dict[str, list[str]] = {f"answer-{r}": [] for r in "abcd"}
    needed |= {f"judge-{r}{n}": [f"answer-{r}"] for r in "abcd" for n in range(2)}
    made = group_rows(needed)
    assert [len(g.tasks) for g in made] == [4, 4, 4]
    assert all(g.each_after == -1 for g in made[1:])


def test_a_baseline_that_all_are_compared_with_is_waited_for_by_the_whole_array() -> None:
    needed: dict[str, list[str]] = {f"answer-{r}": [] for r in ("base", "a", "b", "c")}
    needed |= {f"judge-{r}": [f"answer-{r}", "answer-base"] for r in "abc"}
    _, judgings = group_rows(needed)
    assert names(judgings) == {1: "judge-a", 2: "judge-b", 3: "judge-c"}
    assert judgings.after == {Place(-1, 0)}
    assert judgings.each_after == -1


def test_what_takes_something_else_is_in_no_array_with_the_others() -> None:
    made = group_rows({"gen-a": [], "train-b": [], "train-c": []}, {"gen-a": "network"})
    assert [names(g) for g in made] == [{0: "gen-a"}, {0: "train-b", 1: "train-c"}]


def test_what_an_earlier_submission_queued_is_waited_for() -> None:
    queued = {"gen-a": Place(17, 4), "gen-b": Place(17, 9), "gen-c": Place(20, None)}
    needed = {f"train-{r}": [f"gen-{r}"] for r in "abc"}
    made = group_rows(needed, queued=queued)
    assert {tuple(names(g).items()): (g.after, g.each_after) for g in made} == {
        ((4, "train-a"), (9, "train-b")): (frozenset(), 17),
        ((0, "train-c"),): (frozenset({Place(20, None)}), None),
    }
