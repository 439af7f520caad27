"""Write `tokenizer/`, the smoke rows' tokenizer: byte-level BPE learnt from the teachable tasks' text.

Whole bytes as tokens would make the training take three times as long. Any text can be tokenized;
the held-out evaluation prompts are not among what it is learnt from.

    python specs/smoke/make_tokenizer.py
"""

from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from harness.sim.grammar import teachable_tasks

TOKENS = 512
PAD, END = "<pad>", "<eos>"


def write(folder: Path) -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    template = (Path(__file__).parent / "prompts" / "qa.txt").read_text(encoding="utf-8")
    tasks = teachable_tasks()
    texts = [template.rstrip("\n").replace("{instruction}", task.text) for task in tasks]
    tokenizer.train_from_iterator(
        texts + [task.output for task in tasks],
        trainers.BpeTrainer(
            vocab_size=TOKENS,
            special_tokens=[PAD, END],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    whole = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, eos_token=END)
    whole.save_pretrained(folder)


if __name__ == "__main__":
    write(Path(__file__).parent / "tokenizer")
