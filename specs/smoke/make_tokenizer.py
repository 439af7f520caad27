"""Write `tokenizer/`, the smoke rows' tokenizer, and `twin/tokenizer/`, that of scaled-down twins:
byte-level BPE learnt from the teachable tasks' text.

Whole bytes as tokens would make the training take three times as long. Any text can be tokenized;
the held-out evaluation prompts are not among what it is learnt from.

The twins' has the special tokens of every template in harness/spec/templates and a chat template,
so that any row's template fits it, and has also learnt from the templates, so that these stay short.

    python specs/smoke/make_tokenizer.py
"""

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from harness.sim.grammar import teachable_tasks
from harness.spec.template import TOKENIZER, Template, load_template, template_names

HERE = Path(__file__).parent
TOKENS, TWIN_TOKENS = 512, 1024
PAD, END = "<pad>", "<eos>"
TWIN_START, TWIN_END = "<s>", "</s>"
CHAT = (
    "{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}<|end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
CHAT_TOKENS = ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]


def write(folder: Path) -> None:
    template = (HERE / "prompts" / "qa.txt").read_text(encoding="utf-8").rstrip("\n")
    learnt = learn([template], TOKENS, [PAD, END])
    whole = PreTrainedTokenizerFast(tokenizer_object=learnt, pad_token=PAD, eos_token=END)
    whole.save_pretrained(folder)


def write_twin(folder: Path) -> None:
    templates = [load_template(name) for name in template_names() if name != TOKENIZER]
    special = dict.fromkeys(token for template in templates for token in template.special)
    texts = [text for template in templates for text in texts_of(template)]
    learnt = learn(texts, TWIN_TOKENS, [PAD, TWIN_START, TWIN_END, *special, *CHAT_TOKENS])
    whole = PreTrainedTokenizerFast(
        tokenizer_object=learnt,
        pad_token=PAD,
        bos_token=TWIN_START,
        eos_token=TWIN_END,
        chat_template=CHAT,
    )
    whole.save_pretrained(folder)


def learn(templates: Sequence[str], tokens: int, special: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tasks = teachable_tasks()
    texts = [text.replace("{instruction}", task.text) for text in templates for task in tasks]
    tokenizer.train_from_iterator(
        texts + [task.output for task in tasks],
        trainers.BpeTrainer(
            vocab_size=tokens,
            special_tokens=special,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    return tokenizer


def texts_of(template: Template) -> list[str]:
    prompts = [file.text for file in (template.prompt, template.prompt_with_input) if file]
    return prompts + ([template.system] if template.system else [])


if __name__ == "__main__":
    write(HERE / "tokenizer")
    write_twin(HERE / "twin" / "tokenizer")
