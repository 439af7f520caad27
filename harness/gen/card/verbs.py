"""Verbs and their objects: what English instructions ask for, and how varied that is.

Self-Instruct (arXiv 2212.10560, section 3.1 and its figure) takes the root verb of each instruction
and that verb's direct object from a parser. Here a dictionary of word forms and some rules for
imperatives stand in for the parser: a heuristic, whose figures compare with each other, not with a
parser's.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable
from functools import cache, lru_cache
from typing import Any, NamedTuple

from harness.gen.card.record import Verbs

TOP_VERBS, TOP_NOUNS = 20, 4
"""How many Self-Instruct's figure shows."""
METHOD = "heuristic: a dictionary of word forms and rules for English imperatives, no parser"

SENTENCES_READ, LETTERS_READ = 2, 1000
"""Of an instruction: where its first sentence has no pair, its second one is tried."""

_SENTENCE_END = re.compile(r"[.!?:;]+(?:\s|$)|\n+")
_TOKEN = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*['’]?|\d+(?:[.,]\d+)*|[^\w\s]")
_COUNTRY = re.compile(r"\b(?:US|U\.S\.)(?!\w)")
"""It would be a pronoun in lower case."""
_OPENERS = re.compile(
    r"(?:(?:please|kindly|now|then|next|first|second|finally|also|just|hi|hello|hey|ok|okay|"
    r"so|and|(?!reply|apply|supply|multiply|rely|imply|comply|fly|assembly)[a-z]+ly)\b[,\s]*)+"
)
_REQUEST = re.compile(
    r"(?:(?:can|could|would|will) you|(?:i|we)(?: want| need| would like|['’]d like)(?: you)? to|"
    r"you(?: need to| have to| are asked to| are required to| are to| should| must| will| can)|"
    r"(?:your|the) (?:task|job|goal|aim|objective) is to|help me(?: to)?|let['’]s|let us|try to|"
    r"how to|how (?:do|does|can|could|would|should|might) (?:i|you|we|one|someone)(?: not)?)\b\s*"
)
"""What stands before the verb of a request that is not a bare imperative."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_FRAMES = _words(
    "given using based considering assuming taking if when while after before in on at for from "
    "with without by to as of you i we now here imagining suppose let among"
)
"""First words of a clause that leads up to the one with the root verb, after a comma."""
_AUXILIARIES = _words(
    "is are was were be been being am do does did has have had can could will would shall should "
    "may might must cannot"
)
_NO_VERBS = _AUXILIARIES | _words(
    "like out down up off well best right even better no what who how where when why which sentence "
    "word phrase question title text input topic one two four while in long last just more "
    "less very most such long short still yes welcome thanks"
)
"""Listed as verbs in the dictionary; not what an instruction starts with as a verb."""
_PARTICLES = _words("up out down off together back")
_RECIPIENTS = _words("me us him them")
_DETERMINERS = _words(
    "a an the this these those my your his her its our their some any all each every both either "
    "neither several many few more most another such other no one two three four five six seven "
    "eight nine ten twelve twenty fifty hundred dozen at least"
)
_STOPS = _AUXILIARIES | _words(
    "of in on to for from with without by about into onto over under between among through during "
    "before after above below as than per via within across along around against toward towards "
    "upon like unlike regarding concerning including but nor so that which who whom whose where "
    "when while why how if whether because since until unless what then it itself you yourself he "
    "she they we i himself herself themselves something anything nothing everything someone anyone "
    "everyone him them me us not there here according"
)
"""Words that end a noun phrase or cannot be in one."""
_JOINTS = _words("and or , & /")
_NO_HEADS = _words("following given above below next last same own")
_NEWER_NOUNS = _words(
    "website webpage blog app chatbot dataset timeline tagline hashtag smartphone blockchain "
    "pseudocode flashcard username infographic podcast vlog playlist selfie emoji substring"
)
"""Nouns of instructions that the dictionary lacks; the plural adds an s."""


class VerbNoun(NamedTuple):
    """An instruction's root verb and the noun that is its direct object, as lemmas in lower case."""

    verb: str | None
    noun: str | None


def find_pair(instruction: str) -> VerbNoun:
    """The pair of the first or second sentence; of those without an object, the first one's verb."""
    verb = None
    text = _COUNTRY.sub("USA", instruction[:LETTERS_READ])
    sentences = filter(str.strip, _SENTENCE_END.split(text))
    for _, sentence in zip(range(SENTENCES_READ), sentences, strict=False):
        pair = _in_sentence(sentence.strip().lower())
        if pair.noun is not None:
            return pair
        verb = verb or pair.verb
    return VerbNoun(verb, None)


def diversity(instructions: Iterable[str]) -> Verbs:
    """Verbs and nouns of the distinct instructions, counted."""
    instruction_pairs = [find_pair(text) for text in dict.fromkeys(instructions)]
    pairs = Counter((p.verb, p.noun) for p in instruction_pairs if p.verb and p.noun)
    verbs: Counter[str] = Counter()
    nouns: dict[str, Counter[str]] = {}
    for (verb, noun), count in pairs.items():
        verbs[verb] += count
        nouns.setdefault(verb, Counter())[noun] += count
    return {
        "method": METHOD,
        "instructions": len(instruction_pairs),
        "with_verb": sum(p.verb is not None for p in instruction_pairs),
        "with_pair": pairs.total(),
        "distinct_verbs": len(verbs),
        "distinct_pairs": len(pairs),
        "entropy_bits": _entropy(pairs.values()),
        "top": [
            {
                "verb": verb,
                "count": count,
                "nouns": [{"noun": n, "count": c} for n, c in _most(nouns[verb], TOP_NOUNS)],
            }
            for verb, count in _most(verbs, TOP_VERBS)
        ],
    }


def _most(counter: Counter[str], number: int) -> list[tuple[str, int]]:
    """The most frequent, equals in the order of the alphabet."""
    return sorted(counter.items(), key=lambda item: (-item[1], item[0]))[:number]


def _entropy(counts: Iterable[int]) -> float:
    counts = sorted(counts)
    total = sum(counts)
    return round(math.fsum(c / total * math.log2(total / c) for c in counts), 6)


def _in_sentence(sentence: str) -> VerbNoun:
    clauses = re.split(r",\s+", sentence)
    leads_up = clauses[0].split(maxsplit=1)[:1]
    starts = range(len(clauses)) if leads_up and leads_up[0] in _FRAMES else range(1)
    for start in starts:
        tokens = _TOKEN.findall(_after_opening(", ".join(clauses[start:])))
        if tokens and _is_root(tokens[0]):
            return VerbNoun(tokens[0], _object(tokens[1:]))
    return VerbNoun(None, None)


def _after_opening(clause: str) -> str:
    for opening in (_OPENERS, _REQUEST, _OPENERS):
        match = opening.match(clause)
        if match:
            clause = clause[match.end() :]
    return clause


def _is_root(word: str) -> bool:
    return word not in _NO_VERBS and word in _lemmas(word).get("VERB", ())


def _object(tokens: list[str]) -> str | None:
    """The head of the noun phrase that starts after a verb."""
    if len(tokens) > 1 and tokens[0] in _JOINTS and _is_root(tokens[1]):
        tokens = tokens[2:]
    if tokens and tokens[0] in _PARTICLES | _RECIPIENTS:
        tokens = tokens[1:]
    head = None
    for place, token in enumerate(tokens):
        after = tokens[place + 1] if place + 1 < len(tokens) else ""
        if token in _JOINTS:
            if head is not None and not _joins_adjectives(tokens, place):
                break
            head = None
        elif token in _DETERMINERS or token[0].isdigit():
            if head is not None:
                break
        elif token in _STOPS or not token[0].isalpha():
            break
        elif token.endswith(("'s", "’s", "s'", "s’")):
            head = None
        elif _is_participle(token):
            if head is not None and (_ends_phrase(after) or "NOUN" not in _lemmas(token)):
                break
            if token.endswith("ing"):
                head = _noun(token) or head
        else:
            head = _noun(token) or head
    return head


def _joins_adjectives(tokens: list[str], place: int) -> bool:
    """Whether what stands on both sides of an `and` or a comma can be adjectives."""
    if place == 0 or place + 2 >= len(tokens):
        return False
    before, after = tokens[place - 1], tokens[place + 1]
    is_adjective = "ADJ" in _lemmas(after) or "-" in after or _is_participle(after)
    return "ADJ" in _lemmas(before) and is_adjective and not _ends_phrase(tokens[place + 2])


def _ends_phrase(token: str) -> bool:
    return not token[:1].isalpha() or token in _STOPS | _DETERMINERS | _JOINTS


def _is_participle(word: str) -> bool:
    bases = _lemmas(word).get("VERB", ())
    return bool(bases) and word not in bases and not word.endswith("s")


def _noun(word: str) -> str | None:
    if word in _NEWER_NOUNS or (word.endswith("s") and word[:-1] in _NEWER_NOUNS):
        return word.removesuffix("s")
    nouns = _lemmas(word).get("NOUN", ())
    return nouns[0] if nouns and word not in _NO_HEADS else None


@cache
def _dictionary() -> Any:
    import lemminflect

    return lemminflect.getAllLemmas


@lru_cache(maxsize=2**17)
def _lemmas(word: str) -> dict[str, tuple[str, ...]]:
    """Part of speech -> lemmas; empty for a word that the dictionary lacks."""
    lemmas: dict[str, tuple[str, ...]] = _dictionary()(word)
    return lemmas
