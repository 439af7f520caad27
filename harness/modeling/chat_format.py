"""ChatML's marks given to a model that does not know them, as TRL's setup_chat_format gives them: each
becomes one special token, the first the beginning and the second the end and the padding of a text, and
the embeddings grow (or shrink) to the tokenizer's size.

New rows are drawn around the mean of the old ones, as transformers does by itself, under a seed: what a
base is asked with before any training is the same each time on one kind of device. What was trained has
its rows in its folder: a whole model, or an adapter with its embeddings beside it.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

START, END = "<|im_start|>", "<|im_end|>"
JINJA = (
    "{% for message in messages %}"
    f"{{{{ '{START}' + message['role'] + '\\n' + message['content'] + '{END}\\n' }}}}"
    "{% endfor %}"
    f"{{% if add_generation_prompt %}}{{{{ '{START}assistant\\n' }}}}{{% endif %}}"
)
SEED = 0
"""Of the new rows."""


def add_marks(tokenizer: "PreTrainedTokenizerBase") -> None:
    """Make the marks special tokens of the tokenizer, and ChatML its chat template."""
    tokenizer.add_special_tokens(
        {
            "extra_special_tokens": [START, END],
            "bos_token": START,
            "eos_token": END,
            "pad_token": END,
        },
        replace_extra_special_tokens=False,
    )
    tokenizer.chat_template = JINJA


def fit_embeddings(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> None:
    """A row of the embeddings, and of the head, for each token; the marks begin, end and pad texts.

    The model says from then on that an adapter to it is written with its embeddings
    (harness.train.model.write)."""
    import torch

    if model.get_input_embeddings().num_embeddings != len(tokenizer):
        devices = [torch.cuda.current_device()] if model.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(SEED)
            model.resize_token_embeddings(len(tokenizer))
    model.harness_grown = True
    for config in (model.config, model.generation_config):
        if config is not None:
            config.bos_token_id = tokenizer.bos_token_id
            config.eos_token_id = tokenizer.eos_token_id
            config.pad_token_id = tokenizer.pad_token_id
