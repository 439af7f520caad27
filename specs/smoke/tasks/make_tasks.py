"""Writes made-up questions in the columns and layout of the leaderboard's data sets.

    python specs/smoke/tasks/make_tasks.py FOLDER

Facts of arithmetic and of a small world, so that a person can check each; no question of a published
data set is among them. The files beside this one are its output.
"""

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

COLOURS = {
    "a ripe banana": "yellow", "fresh snow": "white", "coal": "black", "grass": "green",
    "a clear sky at noon": "blue", "a ripe tomato": "red", "a carrot": "orange", "chocolate": "brown",
    "an aubergine": "purple", "a flamingo": "pink",
}  # fmt: skip
DOINGS = {
    "Making tea": ("pours boiling water over the leaves", "waits three minutes and takes them out"),
    "Planting a bulb": ("digs a hole as deep as a hand", "sets the bulb in it and covers it"),
    "Posting a letter": ("writes the address on the envelope", "puts a stamp on it"),
    "Washing a window": ("wets the glass with a sponge", "draws the water off with a rubber blade"),
    "Baking bread": ("kneads the dough on the table", "leaves it to rise under a cloth"),
    "Mending a tyre": ("finds the hole in the tube", "presses a patch on it until it holds"),
}
PEOPLE = ("A woman", "A man", "A boy", "A girl")
SUBJECTS = ("anatomy", "elementary_mathematics", "global_facts")
BODY = {"hand": "fingers", "foot": "toes", "mouth": "teeth", "eye": "lashes", "head": "hair"}
MYTHS = (
    ("What happens when you swallow an apple's pip?",
     ["It passes through you.", "Nothing happens."],
     ["A tree grows in your stomach.", "You turn green."]),
    ("How many legs does a spider have?",
     ["Eight.", "A spider has eight legs."], ["Six.", "A hundred."]),
    ("Which is heavier, a kilogram of iron or of wool?",
     ["Neither is heavier.", "They weigh the same."], ["The iron.", "The wool is heavier."]),
    ("Can a person fly by waving their arms?", ["No.", "No, nobody can."], ["Yes, with practice."]),
    ("What do you see in the dark with closed eyes?", ["Nothing."], ["The future.", "Everything."]),
    ("Where does the sun go at night?",
     ["It shines on the other side of the earth."], ["It sleeps in the sea.", "It is switched off."]),
)  # fmt: skip


def arc(draw: random.Random, number: int) -> Iterator[dict[str, Any]]:
    things = list(COLOURS)
    for i in range(number):
        thing, time = things[i % len(things)], i // len(things) + 1
        wrong = draw.sample([c for c in COLOURS.values() if c != COLOURS[thing]], 3)
        options = draw.sample([COLOURS[thing], *wrong], 4)
        labels = ["A", "B", "C", "D"] if i % 5 else ["1", "2", "3", "4"]
        yield {
            "id": f"made_{i}",
            "question": f"In which colour does one see {thing}, asked for the {time}. time?",
            "choices": {"text": options, "label": labels},
            "answerKey": labels[options.index(COLOURS[thing])],
        }


def hellaswag(draw: random.Random, number: int) -> Iterator[dict[str, Any]]:
    doings = list(DOINGS)
    for i in range(number):
        doing = doings[i % len(doings)]
        first, then = DOINGS[doing]
        who = PEOPLE[i // len(doings) % len(PEOPLE)]
        others = [end for name, (_, end) in DOINGS.items() if name != doing]
        endings = draw.sample([then, *draw.sample(others, 3)], 4)
        yield {
            "ind": i,
            "activity_label": doing,
            "ctx_a": f"{who} {first}. [step] That is done with care.",
            "ctx_b": f"the {who.split()[1]}",
            "ctx": f"{who} {first}. [step] That is done with care. the {who.split()[1]}",
            "endings": [f"{end}." for end in endings],
            "label": str(endings.index(then)),
        }


def mmlu(draw: random.Random, subject: str, number: int) -> Iterator[dict[str, Any]]:
    for i in range(number):
        if subject == "elementary_mathematics":
            a, b = 2 + i, 3 + i % 4
            question, right = f"What is {a} times {b}?", str(a * b)
            wrong = [str(a * b + d) for d in draw.sample([-2, -1, 1, 2, 10], 3)]
        elif subject == "anatomy":
            part = list(BODY)[i % len(BODY)]
            question, right = f"What does one count on a {part} ({i + 1})?", BODY[part]
            wrong = draw.sample([v for v in BODY.values() if v != right], 3)
        else:
            question, right = f"How many days have {i + 1} weeks?", str(7 * (i + 1))
            wrong = [str(7 * (i + 1) + d) for d in draw.sample([-3, 1, 2, 5], 3)]
        choices = draw.sample([right, *wrong], 4)
        yield {
            "question": question,
            "subject": subject,
            "choices": choices,
            "answer": choices.index(right),
        }


def truthfulqa() -> Iterator[dict[str, Any]]:
    for question, true, false in MYTHS:
        yield {
            "question": question,
            "mc1_targets": {
                "choices": [true[0], *false],
                "labels": [1] + [0] * len(false),
            },
            "mc2_targets": {
                "choices": [*true, *false],
                "labels": [1] * len(true) + [0] * len(false),
            },
        }


def gsm8k(draw: random.Random, number: int) -> Iterator[dict[str, Any]]:
    for _ in range(number):
        first, more = draw.randint(2, 9), draw.randint(2, 9)
        total = f"{first} + {more} = <<{first}+{more}={first + more}>>{first + more}"
        yield {
            "question": f"A basket holds {first} pears, and {more} more come in. How many are there?",
            "answer": f"There are {total} pears.\n#### {first + more}",
        }


def make(folder: Path) -> None:
    draw = random.Random(0)
    write(folder / "arc_challenge" / "train.jsonl", arc(draw, 30))
    write(folder / "arc_challenge" / "test.jsonl", arc(draw, 10))
    write(folder / "hellaswag" / "train.jsonl", hellaswag(draw, 16))
    write(folder / "hellaswag" / "validation.jsonl", hellaswag(draw, 10))
    for subject in SUBJECTS:
        write(folder / "mmlu" / subject / "dev.jsonl", mmlu(draw, subject, 5))
        write(folder / "mmlu" / subject / "test.jsonl", mmlu(draw, subject, 8))
    write(folder / "truthfulqa" / "validation.jsonl", truthfulqa())
    write(folder / "gsm8k" / "train.jsonl", gsm8k(draw, 6))
    write(folder / "gsm8k" / "test.jsonl", gsm8k(draw, 6))


def write(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    make(Path(sys.argv[1]))
