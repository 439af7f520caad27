"""Verbs and their objects in instructions as people and models write them."""

import json
import re
from pathlib import Path

import pytest

from harness.gen.card.verbs import VerbNoun, diversity, find_pair
from harness.gen.seeds import read_seeds


@pytest.mark.parametrize(
    ("instruction", "verb", "noun"),
    [
        ("Write a short story about a dragon.", "write", "story"),
        ("List five benefits of exercise", "list", "benefit"),
        ("Rewrite the following sentence: He go home.", "rewrite", "sentence"),
        ("Generate a list of the world's oldest trees.", "generate", "list"),
        ("Design a team building activity", "design", "activity"),
        ("Build a machine learning model using the data", "build", "model"),
        ("Describe Shakespeare's plays.", "describe", "play"),
        ("Convert 10 inches to feet.", "convert", "inch"),
        ("Name a timeline of the war", "name", "timeline"),
    ],
)
def test_an_imperative_gives_its_verb_and_the_head_of_its_object(
    instruction: str, verb: str, noun: str
) -> None:
    assert find_pair(instruction) == VerbNoun(verb, noun)


@pytest.mark.parametrize(
    ("instruction", "verb", "noun"),
    [
        ("Please, tell me a joke.", "tell", "joke"),
        ("Carefully read the text.", "read", "text"),
        ("Can you make a detailed plan for me?", "make", "plan"),
        ("I want you to write a poem", "write", "poem"),
        ("Your task is to classify the tweet.", "classify", "tweet"),
        ("How do I clean a window?", "clean", "window"),
        ("Given two numbers, compute their sum.", "compute", "sum"),
        ("In this task, you need to suggest a word.", "suggest", "word"),
        ("You are given a letter. Find the mistake.", "find", "mistake"),
        ("Find out the currency of Japan", "find", "currency"),
        ("Compare and contrast two poems.", "compare", "poem"),
        ("Name the US states", "name", "state"),
    ],
)
def test_what_leads_up_to_the_verb_is_passed_over(instruction: str, verb: str, noun: str) -> None:
    assert find_pair(instruction) == VerbNoun(verb, noun)


@pytest.mark.parametrize(
    ("instruction", "noun"),
    [
        ("Describe a clear, detailed plan", "plan"),
        ("Write a short and funny story", "story"),
        ("Find the latitude and longitude of Rome", "latitude"),
    ],
)
def test_joined_adjectives_belong_to_the_noun_and_joined_nouns_do_not(
    instruction: str, noun: str
) -> None:
    assert find_pair(instruction).noun == noun


@pytest.mark.parametrize(
    ("instruction", "verb"),
    [
        ("Explain how a plane flies.", "explain"),
        ("Come up with a slogan.", "come"),
        ('Translate "good morning" to French', "translate"),
        ("Classify it into one of these groups", "classify"),
        ("What is the capital of France?", None),
        ("Sentence completion", None),
        ("日本語で書いてください", None),
        ("?!", None),
        ("", None),
    ],
)
def test_where_there_is_no_noun_as_object_none_is_made_up(
    instruction: str, verb: str | None
) -> None:
    assert find_pair(instruction) == VerbNoun(verb, None)


def test_distinct_instructions_are_counted_and_equals_stand_in_the_order_of_the_alphabet() -> None:
    found = diversity(
        [
            "Write a story.",
            "Write a poem.",
            "Write a poem.",
            "List two birds.",
            "List two apples.",
            "Explain why.",
            "Who?",
        ]
    )
    assert (found["instructions"], found["with_verb"], found["with_pair"]) == (6, 5, 4)
    assert (found["distinct_verbs"], found["distinct_pairs"]) == (2, 4)
    assert found["entropy_bits"] == 2.0  # four equally frequent pairs
    assert found["top"] == [
        {
            "verb": "list",
            "count": 2,
            "nouns": [{"noun": "apple", "count": 1}, {"noun": "bird", "count": 1}],
        },
        {
            "verb": "write",
            "count": 2,
            "nouns": [{"noun": "poem", "count": 1}, {"noun": "story", "count": 1}],
        },
    ]


def test_the_objects_of_rewrite_in_alpagasus_are_those_that_a_plain_search_counts(
    shared_data: Path,
) -> None:
    rows = json.loads((shared_data / "alpagasus/claude_t45.json").read_text(encoding="utf-8"))
    instructions = [row["instruction"] for row in rows]
    plain = re.compile(r"Rewrite (the|this|a)( following| given)? sentences?\b(?! \w+ in)")
    expected = sum(plain.match(text) is not None for text in instructions)
    found = diversity(instructions)
    rewrite = next(verb for verb in found["top"] if verb["verb"] == "rewrite")
    assert rewrite["nouns"][0]["noun"] == "sentence"
    assert expected <= rewrite["nouns"][0]["count"] <= 1.1 * expected
    assert found["with_pair"] > 0.75 * found["instructions"]


def test_verbs_of_the_seed_tasks_are_base_forms_that_they_begin_with(shared_data: Path) -> None:
    seeds = read_seeds(shared_data / "self_instruct/seed_tasks.jsonl")
    pairs = [(s.instruction.lower(), find_pair(s.instruction)) for s in seeds]
    found = [(text, pair) for text, pair in pairs if pair.noun]
    assert len(found) > 0.5 * len(pairs)
    assert all(re.search(rf"\b{pair.verb}\b", text) for text, pair in found)
