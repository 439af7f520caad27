"""What a row says. Every default stands here, where it can be seen, and is part of the row's keys.

Fields marked with `NOT_KEY` say how a stage runs, not what it makes: changing them re-runs nothing.
"""

import json
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

NOT_KEY: dict[str, Any] = {"key": False}
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Name = Annotated[str, Field(pattern="^[a-z0-9][a-z0-9._-]*$", max_length=100)]


class Spec(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        protected_namespaces=(),
        defer_build=True,
        allow_inf_nan=False,
    )


class SourceText(str):
    """A string from a YAML file that knows the folder of the file it was written in."""

    folder: Path | None = None

    @classmethod
    def at(cls, value: str, folder: Path) -> "SourceText":
        text = cls(value)
        text.folder = folder
        return text


def _read_text_file(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    folder = getattr(value, "folder", None) or Path()
    path = folder / value
    try:
        return {"path": str(value), "text": path.read_text(encoding="utf-8")}
    except FileNotFoundError:
        raise ValueError(f"there is no file {path}") from None
    except (OSError, UnicodeDecodeError) as e:
        raise ValueError(f"{path} cannot be read as UTF-8 text: {e}") from None


class _TextFile(Spec):
    path: Annotated[str, Field(json_schema_extra=NOT_KEY)]
    text: str


TextFile = Annotated[
    _TextFile,
    BeforeValidator(_read_text_file, json_schema_input_type=str),
]
"""A text file, named by its path relative to the YAML file; its text, not its name, is in the key."""


DATA_SCHEME = "data:"


def _locate(value: Any) -> Any:
    folder = getattr(value, "folder", None)
    if folder is None or value.startswith(DATA_SCHEME):
        return str(value) if isinstance(value, str) else value
    path = folder / value
    try:
        there = path.exists()
    except OSError:
        there = False
    if not there:
        raise ValueError(f"there is no file or folder {path}")
    return str(path)


class _Data(Spec):
    path: Annotated[str, BeforeValidator(_locate), Field(json_schema_extra=NOT_KEY)]
    """A path relative to the YAML file, or `data:PATH` below the folder given with --data."""
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    """What the bytes must be. Left open, it is computed, enters the key, and shows as not pinned."""


def _data_shorthand(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else value


def _with_fields(*names: str) -> AfterValidator:
    """A check that a template's text has a place for each of these."""

    def check(file: _TextFile) -> _TextFile:
        missing = [f"{{{n}}}" for n in names if f"{{{n}}}" not in file.text]
        if missing:
            raise ValueError(f"{file.path} has no place for {', '.join(missing)}")
        return file

    return AfterValidator(check)


Data = Annotated[_Data, BeforeValidator(_data_shorthand, json_schema_input_type=str | _Data)]
"""A given file or folder. Its bytes, not its name, are in the key."""


class Simulated(Spec):
    """The harness's own teacher and judge in place of a real endpoint. Marked in every table."""

    seed: Seed = 0
    error_rate: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of judgements that are turned round, drawn from the request's digest."""
    faults: dict[
        Literal["429", "500", "slow", "hang", "cut", "refuse", "format", "html"],
        Annotated[float, Field(ge=0, le=1)],
    ] = {}
    """Share of requests that misbehave in each way (on their first attempts), for tests."""


def _server_url(value: str) -> str:
    """Checked here, so that what a URL should not hold never leaves the spec."""
    try:
        url = urlsplit(value)
        good = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError as e:
        raise ValueError(f"not a URL: {e}") from None
    if url.username or url.password or url.query:
        raise ValueError("a key or password does not belong in a URL: use api_key_env")
    if not good:
        raise ValueError("a server's URL looks like http://host:port/v1")
    return value


class Endpoint(Spec):
    """An OpenAI-compatible server and the model asked for."""

    model: str
    base_url: Annotated[str, AfterValidator(_server_url)] | None = None
    """Left open: OpenAI's own, or the simulated server when `simulated` is given."""
    api_key_env: Annotated[str | None, Field(pattern="^[A-Za-z_][A-Za-z0-9_]*$")] = Field(
        default=None, json_schema_extra=NOT_KEY
    )
    """Name (never the value) of the environment variable that holds the key; NAME_FILE also works."""
    simulated: Simulated | None = None
    concurrency: Annotated[int, Field(ge=1, le=1024)] = Field(default=16, json_schema_extra=NOT_KEY)
    timeout_s: Annotated[float, Field(gt=0)] = Field(default=60.0, json_schema_extra=NOT_KEY)
    max_attempts: Annotated[int, Field(ge=1)] = Field(default=6, json_schema_extra=NOT_KEY)

    @model_validator(mode="after")
    def _one_server(self) -> "Endpoint":
        if self.simulated is not None and self.base_url is not None:
            raise ValueError("give either base_url or simulated, not both")
        return self


class Sampling(Spec):
    """Decoding parameters of a teacher or judge call; what is left open is not sent."""

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    stop: list[str] | None = None
    seed: int | None = None


class AlpacaGen(Spec):
    """Data generation as Stanford Alpaca did it: each reply holds several whole tasks.

    Defaults from stanford_alpaca 761dc5bf, but the teacher and the wording of the prompt.
    """

    recipe: Literal["alpaca"] = "alpaca"
    teacher: Endpoint
    seeds: Data
    """Seed tasks in Self-Instruct's JSONL format."""
    prompt: Annotated[TextFile, _with_fields("examples", "next")]
    """Template with {count}, {shown}, {examples} and {next}; see specs/smoke/prompts/tasks.txt."""
    examples: Annotated[int, Field(ge=1)]
    """Machine-made examples to keep."""
    shown: Annotated[int, Field(ge=1)] = 3
    tasks_per_reply: Annotated[int, Field(ge=1)] = 20
    requests_per_round: Annotated[int, Field(ge=1)] = 5
    max_requests: Annotated[int, Field(ge=1)] | None = None
    """Where to stop when too few replies hold anything new; left open: 20 + 4 times the ideal."""
    max_similarity: Annotated[float, Field(ge=0, le=1)] = 0.7
    """Highest ROUGE-L F-measure against seeds and kept instructions; 1: only exact repeats go."""
    sampling: Sampling = Sampling(temperature=1.0, top_p=1.0, max_tokens=3072)
    include_seeds: bool = True
    """Whether the seed tasks themselves stand in the data set."""
    seed: Seed = 42


Gen = AlpacaGen


def _as_json(value: dict[str, Any]) -> dict[str, Any]:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as e:
        raise ValueError(f"a configuration holds what JSON can hold: {e}") from None
    return value


class RandomModel(Spec):
    """A model with random weights: real architecture, no training. Marked in manifests and tables."""

    config: Annotated[dict[str, Any], AfterValidator(_as_json)]
    """A transformers configuration with `model_type`, as in config.json."""
    tokenizer: Literal["bytes"] | Data = "bytes"
    """`bytes`: one token a byte, made on the spot; or a folder that holds a tokenizer."""
    seed: Seed = 0


class HubModel(Spec):
    id: Annotated[str, Field(pattern="^[\\w.-]+/[\\w.-]+$")]
    revision: Annotated[str, Field(pattern="^[0-9a-f]{40}$")]
    """The full commit hash; a branch name would let the row change under its key."""


class ModelSource(Spec):
    """Where the base model comes from: exactly one of these."""

    random: RandomModel | None = None
    path: Data | None = None
    """A local folder with config.json, safetensors weights and a tokenizer."""
    hub: HubModel | None = None

    @model_validator(mode="after")
    def _one_source(self) -> "ModelSource":
        if sum(s is not None for s in (self.random, self.path, self.hub)) != 1:
            raise ValueError("give exactly one of random, path, hub")
        return self


class Template(Spec):
    """How an instruction becomes the text the model sees. The answer follows it directly."""

    prompt: Annotated[TextFile, _with_fields("instruction")]
    """Text with {instruction} and, where wanted, {input}; without {input}, a non-empty input
    follows the instruction on a line of its own. A newline at the file's very end does not count."""
    stop: list[Annotated[str, Field(min_length=1)]] = []
    """Texts that end an answer, beside the tokenizer's end-of-sequence token."""


Beta = Annotated[float, Field(ge=0, lt=1)]


class Train(Spec):
    """Full supervised fine-tuning on the answer's tokens. Defaults are TRL 1.16's where it has one."""

    method: Literal["full"] = "full"
    learning_rate: Annotated[float, Field(gt=0)] = 2e-5
    epochs: Annotated[float, Field(gt=0, le=100_000)] = 3.0
    steps: Annotated[int, Field(ge=1)] | None = None
    """Optimizer steps; overrides epochs."""
    batch_size: Annotated[int, Field(ge=1)] = 8
    accumulation: Annotated[int, Field(ge=1)] = 1
    scheduler: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "linear"
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    cutoff_length: Annotated[int, Field(ge=2)] = 1024
    """Tokens; longer examples are cut at the end, counted and shown."""
    precision: Literal["float32", "bfloat16"] = "float32"
    gradient_checkpointing: bool = False
    seed: Seed = 42
    threads: Annotated[int, Field(ge=1)] | None = None
    """CPU threads; the last bits of a float sum depend on it. Left open: what the machine has."""
    checkpoint_steps: Annotated[int, Field(ge=1)] = Field(default=100, json_schema_extra=NOT_KEY)

    @model_validator(mode="after")
    def _warmup_counts(self) -> "Train":
        if self.scheduler == "constant" and self.warmup_steps:
            raise ValueError("a constant schedule has no warm-up: say constant_with_warmup")
        return self


class PromptSet(Spec):
    """Instructions to answer: a JSON list or JSONL with `instruction` and, where there, `input`."""

    file: Data
    first: Annotated[int, Field(ge=1)] | None = None
    """Only the first so many."""


class Decoding(Spec):
    max_new_tokens: Annotated[int, Field(ge=1)] = 2048
    temperature: Annotated[float, Field(ge=0)] = 0.0
    """0: greedy."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    seed: Seed = 42


class Answer(Spec):
    prompts: PromptSet
    template: Template | None = None
    """Left open: the row's own template."""
    decoding: Decoding = Decoding()
    batch_size: Annotated[int, Field(ge=1)] = 16
    precision: Literal["float32", "bfloat16"] = "float32"
    threads: Annotated[int, Field(ge=1)] | None = None


class PreferenceJudge(Spec):
    """The harness's own pairwise judge: one call a prompt, the order of the two outputs drawn per
    instruction, win rate and standard error as AlpacaEval defines them."""

    kind: Literal["preference"] = "preference"
    judge: Endpoint
    prompt: Annotated[TextFile, _with_fields("instruction", "output_a", "output_b")]
    """Template with {instruction}, {output_a} and {output_b}; the reply must start with `a` or `b`,
    or `tie`."""
    reference: Data
    """The baseline's outputs, in alpaca_eval's format, one for each instruction."""
    sampling: Sampling = Sampling(temperature=0.0, max_tokens=50)


class AlpacaEvalJudge(Spec):
    """The alpaca-eval package itself, its calls passing through the harness's recorder."""

    kind: Literal["alpaca_eval"] = "alpaca_eval"
    judge: Endpoint
    annotator: str = "chatgpt"
    """One of the package's annotator configurations."""
    reference: Data
    metric: Literal["get_winrate"] = "get_winrate"


Judge = Annotated[PreferenceJudge | AlpacaEvalJudge, Field(discriminator="kind")]


class Eval(Spec):
    answer: Answer
    judge: Judge | None = None


class Source(Spec):
    """Where the published number stands."""

    document: str
    table: str | None = None
    line: Annotated[int, Field(ge=1)] | None = None
    url: str | None = None


class Reported(Spec):
    """A published metric. Counts are of prompts."""

    value: float
    standard_error: Annotated[float, Field(ge=0)] | None = None
    judged: Annotated[int, Field(ge=0)] | None = None
    expected: Annotated[int, Field(ge=1)] | None = None


def _distinct(seeds: list[int]) -> list[int]:
    if len(set(seeds)) < len(seeds):
        raise ValueError("a seed given twice makes the same replicate twice")
    return seeds


class Replicates(Spec):
    """The same row again. Every combination of these is run."""

    train_seeds: Annotated[list[Seed], Field(min_length=1), AfterValidator(_distinct)] | None = None
    sampling_seeds: Annotated[list[Seed], Field(min_length=1), AfterValidator(_distinct)] | None = (
        None
    )
    judge: Annotated[int, Field(ge=1)] = 1


class Budget(Spec):
    """Stops a stage, cleanly and before the limit is passed. The same command with more goes on."""

    calls: Annotated[int, Field(ge=0)] | None = None
    tokens: Annotated[int, Field(ge=0)] | None = None


class Limits(Spec):
    """What a stage's container may use."""

    cpus: Annotated[float, Field(gt=0)] | None = None
    memory: Annotated[str, Field(pattern="^[0-9]+[kmg]$")] | None = None
    """For example 8g."""
    shm: Annotated[str, Field(pattern="^[0-9]+[kmg]$")] = "1g"
    pids: Annotated[int, Field(ge=16)] = 4096


class Row(Spec):
    """One line of a results table."""

    row: Name
    """The row's id, unique among all specs."""
    table: Name
    title: str
    varied: dict[str, str | int | float | bool] = {}
    """What sets this row apart from the others of its table."""
    source: Source | None = None
    reported: dict[str, Reported] = {}
    model: ModelSource
    template: Template
    gen: Gen | None = None
    data: Data | None = None
    """A given data set in place of gen: JSON or JSONL with instruction, input, output."""
    train: Train | None = None
    eval: Eval | None = None
    replicates: Replicates = Replicates()
    budget: Budget = Budget()
    limits: Limits = Limits()
    deviations: list[str] = []
    """Stated differences between the published set-up and this one."""

    @model_validator(mode="after")
    def _fits_together(self) -> "Row":
        if self.gen is not None and self.data is not None:
            raise ValueError("give either gen or data, not both")
        if self.train is not None and self.gen is None and self.data is None:
            raise ValueError("train needs a data set: give gen or data")
        if self.replicates.train_seeds and self.train is None:
            raise ValueError("replicates.train_seeds needs train")
        if (self.replicates.sampling_seeds or self.replicates.judge > 1) and self.eval is None:
            raise ValueError("these replicates need eval")
        if (
            self.replicates.sampling_seeds
            and self.eval
            and not self.eval.answer.decoding.temperature
        ):
            raise ValueError(
                "replicates.sampling_seeds needs a temperature over 0: greedy answers are all the same"
            )
        return self
