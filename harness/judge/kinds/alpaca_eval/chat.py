"""Texts that rewrite the conversation which alpaca_eval has with a judge.

The package fills a text with `<|im_start|>` and `<|im_end|>` and cuts it into messages there, wherever
the two stand: also in an instruction or an output, as models write them whose end token was missed. Its
requests are left as they are; that it happened is said.
"""

from collections.abc import Sequence

from harness.artefact.manifest import Finding
from harness.common.progress import counted
from harness.judge.pairs import Pair

SPECIAL_TOKENS = ("<|im_start|>", "<|im_end|>")
NO_PROMPT = "<|im_start|>user\n<|im_end|>"
"""Stands for a prompt that is not sent."""
SHOWN = 80
"""Characters of an example, on either side."""


def broken_pairs(pairs: Sequence[Pair]) -> list[Pair]:
    """Those shown to the judge, with a text that holds one of the tokens."""
    return [
        pair
        for pair in pairs
        if not pair.is_identical
        and _is_in(pair.instruction + "\n" + pair.output + "\n" + pair.baseline)
    ]


def broken_prompts(prompts: Sequence[str], template: str) -> set[int]:
    """The places of those with more of the tokens than their template has."""
    return {
        i
        for i, prompt in enumerate(prompts)
        if any(prompt.count(token) != template.count(token) for token in SPECIAL_TOKENS)
    }


def broken_findings(pairs: Sequence[Pair], unjudged: set[str]) -> list[Finding]:
    """A finding `judge_prompt_broken` where there is such a pair. `unjudged`: instructions."""
    broken = broken_pairs(pairs)
    if not broken:
        return []
    first = broken[0]
    texts = {"instruction": first.instruction, "output": first.output, "baseline": first.baseline}
    name, text = next((name, text) for name, text in texts.items() if _is_in(text))
    at = min(text.find(token) for token in SPECIAL_TOKENS if token in text)
    message = (
        f"of {counted(len(pairs), 'prompt')} {len(broken)} {'has' if len(broken) == 1 else 'have'} "
        f"{' or '.join(SPECIAL_TOKENS)} in the instruction, the output or the baseline's, at which "
        "alpaca_eval cuts its prompt into messages: the judge was shown a conversation that "
        "the text rewrote, and what it said of it is no judgement of the outputs"
    )
    evidence = {
        "prompts": len(pairs),
        "special_tokens": len(broken),
        "unjudged": sum(pair.instruction in unjudged for pair in broken),
        "example": {
            "instruction": first.instruction[:SHOWN],
            "in": name,
            "text": text[max(0, at - SHOWN) : at + SHOWN],
        },
    }
    return [Finding("judge_prompt_broken", "error", message, evidence)]


def _is_in(text: str) -> bool:
    return any(token in text for token in SPECIAL_TOKENS)
