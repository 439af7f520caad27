"""`harness chat`: talk to a row's model at the terminal, in the row's own template.

It runs in this Python environment, which needs what the eval image holds; in a container:
`docker compose run --rm -it --entrypoint "python -m harness chat" eval ROW`.
"""

import contextlib
import logging
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

import click

from harness.answer.answer import Decoding
from harness.answer.engine import QUANTIZATION
from harness.artefact import environment
from harness.artefact.call import CHECKPOINT, model_input
from harness.common.device_faults import as_fault, ran_out_of_memory
from harness.common.progress import plain
from harness.errors import InputError, Interrupted
from harness.row.row import Row
from harness.run.executors.placing import check_cpu_is_meant
from harness.run.hub import needs_base
from harness.run.plan import RowPlan, dump, quantization_of, trained
from harness.spec.model_source import ModelSource
from harness.train import model_card

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from harness.answer.decoding.stops import Stops
    from harness.modeling.text import Encoder
    from harness.run.runner import Runner

RESET, EXIT = "/reset", "/exit"
HELP = f"{RESET} forgets what was said, {EXIT} or Ctrl-D leaves, Ctrl-C stops an answer."
TAB = "    "
UNFINISHED = 3
"""Bytes at most that a character still lacks its last one to; each may show as U+FFFD."""


class Wishes(NamedTuple):
    """What the command line says in place of what the row says."""

    seed: int | None = None
    temperature: float | None = None
    max_new_tokens: int | None = None
    system: str = ""
    once: str | None = None
    """The only question; its answer is all that is written to standard output."""
    label: str = ""
    """Which of several trained models."""


class Shown:
    """An answer on its way to the terminal: harmless, with what cannot be known yet held back.

    That is the bytes of an unfinished character, and what may be the beginning of a stop text.
    """

    def __init__(self, stop: Sequence[str], out: TextIO) -> None:
        self.stop, self.out = stop, out
        self.text = ""
        """The answer so far, as the model gave it; without the stop text."""
        self.printed = 0
        self.ended = False

    def update(self, text: str, last: bool = False) -> None:
        """The whole answer as it is known now; `last`: nothing follows."""
        if self.ended:
            return
        places = [text.find(stop) for stop in self.stop if stop in text]
        self.ended = bool(places)
        self.text = text[: min(places, default=len(text))]
        sure = len(self.text) if last or self.ended else self._sure()
        if sure > self.printed:
            self.out.write(plain(self.text[self.printed : sure].replace("\t", TAB)))
            self.out.flush()
            self.printed = sure

    def _sure(self) -> int:
        decoded = self.text[:-UNFINISHED] + self.text[-UNFINISHED:].rstrip("\ufffd")
        starts = (stop[:n] for stop in self.stop for n in range(1, len(stop)))
        held = max((len(s) for s in starts if decoded.endswith(s)), default=0)
        return len(decoded) - held


class _Stopped(Exception):
    """A stop text is complete."""


@dataclass
class Streamer:
    """Takes tokens from generate(): the prompt first, then each new one."""

    stops: "Stops"
    output: Shown
    ends: set[int]
    ids: list[int] = field(default_factory=list)
    has_prompt: bool = False

    def put(self, tokens: Any) -> None:
        if not self.has_prompt:
            self.has_prompt = True
            return
        self.ids += [token for token in tokens.flatten().tolist() if token not in self.ends]
        self.output.update(self.stops.text(self.ids, unfinished=True))
        if self.output.ended or self.stops.complete(self.ids):
            raise _Stopped

    def end(self) -> None:
        pass

    def read(self) -> str:
        return self.stops.text(self.ids)


@dataclass
class Chat:
    """A loaded model, and what was said so far."""

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    encoder: "Encoder"
    decoding: Decoding
    system: str
    turns: bool
    """Whether the template has a place for what was said before."""
    history: list[tuple[str, str]] = field(default_factory=list)

    def reset(self) -> None:
        """Forget what was said; the same questions have the same answers again."""
        import torch

        self.history.clear()
        torch.manual_seed(self.decoding.seed)

    def answer(self, question: str, out: TextIO) -> None:
        """Write the answer as it comes. What Ctrl-C leaves of it counts as said."""
        import torch

        from harness.answer.decoding.decode import generation_settings
        from harness.answer.decoding.stops import Stops

        ids = self._prompt(question)
        ends, texts = self.encoder.stops(self.decoding.stop)
        settings = generation_settings(self.model, self.tokenizer, self.decoding, len(ids), ends)
        prompt = torch.tensor([ids], device=self.model.device)
        output = Shown(texts, out)
        streamer = Streamer(Stops(self.tokenizer, texts), output, set(settings.eos_token_id))
        try:
            with contextlib.suppress(_Stopped), torch.inference_mode():
                self.model.generate(
                    prompt,
                    attention_mask=torch.ones_like(prompt),
                    generation_config=settings,
                    streamer=streamer,
                )
        except Exception as e:
            if not ran_out_of_memory(e):
                raise
            _tell(f"there is no memory left for this: {RESET} forgets what was said")
        finally:
            output.update(streamer.read(), last=True)
            out.write("\n")
            out.flush()
            if output.text and self.turns:
                self.history.append((question, output.text))

    def _prompt(self, question: str) -> list[int]:
        """The question with what was said before it; the oldest of that goes where it is too long."""
        from harness.modeling.load import most_positions

        limit = most_positions(self.model)
        while True:
            ids = self.encoder.prompt(question, system=self.system, history=self.history)
            if limit is None or len(ids) < limit:
                return ids
            if not self.history:
                raise InputError(f"the question has {len(ids)} tokens, the model takes {limit}")
            del self.history[0]
            _tell(f"the oldest question is left out: the model takes {limit} tokens")


def chat(runner: "Runner", plan: RowPlan, wishes: Wishes) -> None:
    """Load the row's trained model, or its base model where it trains none, and talk.

    Raises:
        InputError: the row has no model, or it is not there; see also harness.run.plan.trained.
        Damaged: a file of the model is not what its manifest says.
        HarnessError: memory ran out, or the GPU failed, or whether there is one is not known.
    """
    # Ctrl-C stops an answer; being told to end, by `kill` or a container's engine, ends the chat.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        talk = _load(runner, plan, wishes)
        talk.reset()
        if wishes.once is not None:
            talk.answer(wishes.once, sys.stdout)
            return
        _tell(HELP)
        _converse(talk)
    except Exception as e:
        fault = as_fault(e)
        if fault is None or fault is e:
            raise
        raise fault from e


def _converse(talk: Chat) -> None:
    ask = _asker()
    while True:
        try:
            question = ask()
        except KeyboardInterrupt:
            if not sys.stdin.isatty():
                raise Interrupted("stopped") from None
            _tell(f"\n{HELP}")
            continue
        if question is None or question == EXIT:
            return
        if question == RESET:
            talk.reset()
            _tell("forgotten")
        elif question.startswith("/") and question[1:].isalpha():
            _tell(f"{question} is no command. {HELP}")
        elif question:
            try:
                talk.answer(question, sys.stdout)
            except KeyboardInterrupt:
                _tell("(stopped)")
            except InputError as e:
                _tell(e.message)


def _asker() -> Callable[[], str | None]:
    """Reads a question, or None at the end: with a prompt and editing at a terminal, else plainly."""
    if sys.stdin is None:  # as it is where whoever started the command closed it
        return lambda: None
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(errors="replace")
    if not sys.stdin.isatty():

        def read() -> str | None:
            line = sys.stdin.readline()
            return line.strip() if line else None

        return read

    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  (input() then edits the line and remembers earlier ones)

    def ask() -> str | None:
        try:
            return input("> ").strip()
        except EOFError:
            return None

    return ask


def _load(runner: "Runner", plan: RowPlan, wishes: Wishes) -> Chat:
    row = plan.row
    answer = row.answer
    template = row.template or (answer.template if answer else None)
    if row.model is None or template is None:
        raise InputError(f"row {row.row} has no model to talk to")
    check_cpu_is_meant("the model")
    inputs, words = _model_of(runner, plan, wishes.label)
    _tell(f"row {row.row}: {row.title}")
    for line in words:
        _tell(line)
    source = ModelSource.model_validate(dump(row.model, lambda d: str(runner.files.locate(d))))
    precision = answer.engine.dtype if answer else "float32"
    decoding = _decoding(row, wishes)
    load, text = _libraries()
    device = load.available_device()
    tokenizer = load.load_tokenizer(source, inputs)
    encoder = text.Encoder(tokenizer, template)
    for note in encoder.notes:
        _tell(note)
    encoder.prompt("", system=wishes.system)  # has the template a place for it?
    how_quantised = answer.quantization if answer else "as_trained"
    quantization = quantization_of(row, how_quantised).get(QUANTIZATION)
    with load.memory_for_loading(source, inputs, tokenizer, precision):
        model = load.load_model(source, inputs, tokenizer, precision, device, quantization)
    if quantization is not None:
        _tell(f"its base is quantised as in training ({quantization.type})")
    elif row.train is not None and row.train.quantization is not None:
        _tell("its base is not quantised: another model than the one that was trained")
    how = "greedy" if not decoding.temperature else f"temperature {decoding.temperature:g}, "
    if decoding.temperature:
        how += f"top_p {decoding.top_p:g}, " + f"min_p {decoding.min_p:g}, " * bool(decoding.min_p)
        how += f"seed {decoding.seed}"
    _tell(
        f"{model.num_parameters():,} parameters in {precision} on {load.device_name(device)}; "
        f"{how}, at most {decoding.max_new_tokens or 'as many as it has room for'} tokens an answer"
    )
    turns = template.from_tokenizer or template.separator is not None
    if not turns and wishes.once is None:
        _tell("its template has no earlier turns: each question stands alone")
    return Chat(model, tokenizer, encoder, decoding, wishes.system, turns)


def _model_of(runner: "Runner", plan: RowPlan, label: str) -> tuple[dict[str, str], list[str]]:
    """Where the model stands, and what it is."""
    row, inputs, artefact = plan.row, {}, None
    assert row.model is not None
    if row.train is not None or label:
        planned = trained(plan, label)
        artefact = planned.made
        artefact.check()
        step = {CHECKPOINT: row.checkpoint} if row.checkpoint is not None else {}
        inputs["model"] = str(model_input(artefact.folder, step))
        words = [f"its trained model{planned.in_brackets}, train/{artefact.key[:12]}"]
        words += [f"NOTE: {mark}" for mark in model_card.marks(artefact.manifest.to_json())]
    else:
        words = ["its base model, untrained"]
        if row.model.random is not None:
            words += ["NOTE: random weights and no training: what it says means nothing"]
    if row.model.hub is not None and needs_base(artefact):
        folder = runner.store.hub_folder(row.model.hub, row.model.trust_remote_code)
        if not folder.is_dir():
            raise InputError(
                f"the model {row.model.hub.id} is not on the volume",
                f"Download it: {environment.command_line('fetch', str(plan.spec), 'fetch')}",
            )
        inputs["hub"] = str(folder)
    return inputs, words


def _decoding(row: Row, wishes: Wishes) -> Decoding:
    decoding = row.answer.decoding if row.answer else Decoding()
    names = ("seed", "temperature", "max_new_tokens")
    overrides = {name: getattr(wishes, name) for name in names}
    return decoding.model_copy(update={n: v for n, v in overrides.items() if v is not None})


def _libraries() -> tuple[Any, Any]:
    """What loads models, and what makes tokens of a text."""
    try:
        import torch  # noqa: F401
        import transformers

        from harness.modeling import load, text
    except ImportError as e:
        raise InputError(
            f"chat needs the libraries of the eval image, and {e.name} is not here",
            "make install; or in a container: docker compose run --rm -it --entrypoint "
            '"python -m harness chat" eval ROW',
        ) from None
    transformers.logging.set_verbosity_error()
    # That a faster kernel for 4 bits on the CPU is not here: a stage's log has that.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    return load, text


def _tell(text: str) -> None:
    """About the chat, to standard error: standard output has the answers alone."""
    click.echo(plain(text), err=True)
