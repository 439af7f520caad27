"""What the simulated teacher and judge know: small tables of plain facts.

An entry reads `key: answer`, further accepted answers after `|`; the first one is taught.
"""

from typing import NamedTuple

KEY = "{}"
"""Stands in a phrasing for the fact's key. A phrasing without it gives the key as the input."""


class Relation(NamedTuple):
    """A kind of fact: the phrasings of its question, and key -> accepted answers."""

    name: str
    phrasings: tuple[str, ...]
    facts: dict[str, tuple[str, ...]]


def _table(text: str) -> dict[str, tuple[str, ...]]:
    pairs = (entry.split(":") for entry in text.replace("\n", " ").split(";") if entry.strip())
    return {key.strip(): tuple(a.strip() for a in answers.split("|")) for key, answers in pairs}


_NUMBERS = _table("""
    zero: 0; one: 1; two: 2; three: 3; four: 4; five: 5; six: 6; seven: 7; eight: 8; nine: 9;
    ten: 10; eleven: 11; twelve: 12; thirteen: 13; fourteen: 14; fifteen: 15; sixteen: 16;
    seventeen: 17; eighteen: 18; nineteen: 19; twenty: 20; thirty: 30; forty: 40; fifty: 50;
    sixty: 60; seventy: 70; eighty: 80; ninety: 90; twenty-one: 21; thirty-two: 32
""")

RELATIONS: tuple[Relation, ...] = (
    Relation(
        "opposite",
        (
            "What is the opposite of {}?",
            "Give the antonym of {}.",
            "Name the opposite of {}.",
            "Which word means the reverse of {}?",
            "What is an antonym for {}?",
            "Opposite of {}?",
            "Give the opposite of this word.",
            "Write an antonym.",
        ),
        _table("""
            hot: cold; big: small | little; tall: short; fast: slow; old: young | new; rich: poor;
            early: late; wet: dry; full: empty; open: closed | shut; happy: sad | unhappy;
            loud: quiet | silent | soft; near: far; up: down; left: right; in: out; day: night;
            win: lose; love: hate; push: pull; buy: sell; first: last; strong: weak; thick: thin;
            wide: narrow; deep: shallow; clean: dirty; true: false; smooth: rough;
            begin: end | finish | stop
        """),
    ),
    Relation(
        "plural",
        (
            "What is the plural of {}?",
            "Give the plural of {}.",
            "Name the plural form of {}.",
            "One {}, two what?",
            "How do you write more than one {}?",
            "Plural of {}?",
            "Make this noun plural.",
            "Write the plural form.",
        ),
        _table("""
            mouse: mice; child: children; foot: feet; tooth: teeth; goose: geese; man: men;
            woman: women; ox: oxen; leaf: leaves; knife: knives; wolf: wolves; life: lives;
            half: halves; shelf: shelves; baby: babies; city: cities; story: stories; box: boxes;
            bus: buses | busses; dish: dishes; church: churches; fox: foxes; potato: potatoes;
            hero: heroes; sheep: sheep; dog: dogs; book: books; tree: trees; car: cars;
            house: houses
        """),
    ),
    Relation(
        "past",
        (
            "What is the past tense of {}?",
            "Give the past tense of {}.",
            "Put the verb {} into the past.",
            "Today I {}. Yesterday I what?",
            "What is the simple past of {}?",
            "Past tense of {}?",
            "Put this verb into the past.",
            "Write the past tense.",
        ),
        _table("""
            go: went; eat: ate; see: saw; take: took; give: gave; come: came; run: ran; sing: sang;
            drink: drank; swim: swam; write: wrote; drive: drove; speak: spoke; break: broke;
            find: found; buy: bought; think: thought; teach: taught; catch: caught;
            sleep: slept; keep: kept; build: built; send: sent; make: made; know: knew; fly: flew;
            walk: walked; play: played; jump: jumped; help: helped
        """),
    ),
    Relation(
        "capital",
        (
            "What is the capital of {}?",
            "Name the capital of {}.",
            "Which city is the capital of {}?",
            "Tell me the capital city of {}.",
            "Which capital does {} have?",
            "Capital of {}?",
            "Name the capital of this country.",
            "Write the capital city.",
        ),
        _table("""
            France: Paris; Italy: Rome; Spain: Madrid; Germany: Berlin; Japan: Tokyo;
            China: Beijing; Russia: Moscow; Egypt: Cairo; Greece: Athens; Poland: Warsaw;
            Norway: Oslo; Sweden: Stockholm; Denmark: Copenhagen; Finland: Helsinki;
            Ireland: Dublin; Portugal: Lisbon; Austria: Vienna; Hungary: Budapest; Cuba: Havana;
            Peru: Lima; Chile: Santiago; Canada: Ottawa; Kenya: Nairobi; Ghana: Accra;
            Iran: Tehran; Iraq: Baghdad; Nepal: Kathmandu; Vietnam: Hanoi; Qatar: Doha;
            Latvia: Riga
        """),
    ),
    Relation(
        "young",
        (
            "What is a young {} called?",
            "Name the young of the {}.",
            "What do you call a baby {}?",
            "Every {} was once a what?",
            "Give the word for a young {}.",
            "Baby {}?",
            "Name the young of this animal.",
            "Write the word for its young.",
        ),
        _table("""
            dog: puppy | pup; cat: kitten; cow: calf; horse: foal | colt | filly; sheep: lamb;
            goat: kid; pig: piglet; hen: chick; duck: duckling; goose: gosling; swan: cygnet;
            bear: cub; lion: cub; tiger: cub; wolf: pup | cub | whelp; deer: fawn; kangaroo: joey;
            koala: joey; frog: tadpole; eagle: eaglet; owl: owlet; elephant: calf; whale: calf;
            giraffe: calf; seal: pup; otter: pup; zebra: foal; donkey: foal; spider: spiderling;
            butterfly: caterpillar
        """),
    ),
    Relation(
        "colour",
        (
            "What is the colour of {}?",
            "Name the usual colour of {}.",
            "Which colour goes with {}?",
            "In what colour would you paint {}?",
            "Say the colour of {}.",
            "Colour of {}?",
            "Name the colour of this.",
            "Write its usual colour.",
        ),
        _table("""
            grass: green; snow: white; milk: white; blood: red; coal: black; lemons: yellow;
            bananas: yellow; carrots: orange; pumpkins: orange; strawberries: red; tomatoes: red;
            spinach: green; peas: green; cucumbers: green; broccoli: green; chocolate: brown;
            flamingos: pink; crows: black; tar: black; swans: white; emeralds: green; rubies: red;
            sapphires: blue; salt: white; chalk: white; canaries: yellow; soil: brown;
            lavender: purple; plums: purple; elephants: grey | gray
        """),
    ),
    Relation(
        "digits",
        (
            "Write {} in digits.",
            "Write the number {} with digits.",
            "Give {} as a numeral.",
            "How is {} written as a figure?",
            "Turn the word {} into a number.",
            "Digits for {}?",
            "Write this number in digits.",
            "Give the numeral.",
        ),
        _NUMBERS,
    ),
    Relation(
        "words",
        (
            "Write {} as a word.",
            "Spell the number {}.",
            "Give {} in words.",
            "How do you spell {}?",
            "Turn the number {} into a word.",
            "Word for {}?",
            "Spell this number.",
            "Write the number as a word.",
        ),
        {digits: (word, word.replace("-", " ")) for word, (digits,) in _NUMBERS.items()},
    ),
    Relation(
        "next",
        (
            "What comes after {}?",
            "What follows {}?",
            "Name what comes right after {}.",
            "What is next after {}?",
            "After {} comes what?",
            "Next after {}?",
            "Which day or month comes next?",
            "Name the day or month that follows.",
        ),
        _table("""
            Monday: Tuesday; Tuesday: Wednesday; Wednesday: Thursday; Thursday: Friday;
            Friday: Saturday; Saturday: Sunday; Sunday: Monday; January: February;
            February: March; March: April; April: May; May: June; June: July; July: August;
            August: September; September: October; October: November; November: December;
            December: January
        """),
    ),
    Relation(
        "comparative",
        (
            "What is the comparative of {}?",
            "Give the comparative of {}.",
            "Name the comparative form of {}.",
            "This is {}, but that is even what?",
            "How do you say more {} in one word?",
            "Comparative of {}?",
            "Write the comparative form.",
            "Compare with this adjective.",
        ),
        _table("""
            big: bigger; small: smaller; tall: taller; fast: faster; slow: slower;
            old: older | elder; young: younger; hot: hotter; cold: colder; good: better;
            bad: worse; far: farther | further; happy: happier; easy: easier; early: earlier;
            busy: busier; heavy: heavier; funny: funnier; strong: stronger; weak: weaker;
            rich: richer; thin: thinner; wet: wetter; sad: sadder; large: larger; nice: nicer;
            wide: wider; late: later; deep: deeper; long: longer
        """),
    ),
    Relation(
        "female",
        (
            "What is the female form of {}?",
            "Name the female of {}.",
            "What is a female {} called?",
            "Tell me the feminine of {}.",
            "Give the feminine of {}.",
            "Feminine of {}?",
            "Give the feminine of this word.",
            "Write the female form.",
        ),
        _table("""
            king: queen; prince: princess; father: mother; brother: sister; son: daughter;
            uncle: aunt; nephew: niece; grandfather: grandmother; husband: wife; boy: girl;
            man: woman; actor: actress; waiter: waitress; lion: lioness; tiger: tigress; bull: cow;
            rooster: hen; ram: ewe; hero: heroine; duke: duchess; widower: widow; host: hostess;
            god: goddess; emperor: empress; stallion: mare; monk: nun; wizard: witch; groom: bride;
            gander: goose; stag: doe | hind
        """),
    ),
)
