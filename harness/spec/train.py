"""The train stage's parameters, under their usual names."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from harness.spec.base import NOT_KEY, Data, Seed, Spec, if_set

Beta = Annotated[float, Field(ge=0, lt=1)]
Optimizer = Literal["adamw", "adamw_8bit", "paged_adamw", "paged_adamw_8bit", "adafactor", "sgd"]
LossOver = Literal["answers", "text"]
Scheduler = Literal["linear", "cosine", "constant", "constant_with_warmup", "warmup_lr"]


class Lora(Spec):
    """Low-rank adapters (arXiv 2106.09685). Defaults are LLaMA-Factory's."""

    rank: Annotated[int, Field(ge=1)] = 8
    """Of the two matrices whose product is added to a layer's weights."""
    alpha: Annotated[float, Field(gt=0)] = 16.0
    """The adapter's output is scaled by alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Of the inputs of adapters, while they are trained."""
    target_modules: Literal["all-linear"] | Annotated[list[str], Field(min_length=1)] = "all-linear"
    """Names of the modules that get an adapter; all-linear: every linear layer but the output head."""
    merge: bool = False
    """Leave a whole model, the adapters added to the unquantised base, in place of the adapter."""


class Quantization(Spec):
    """Of the frozen base under QLoRA (arXiv 2305.14314), by bitsandbytes."""

    type: Literal["nf4", "fp4"] = "nf4"
    """The 4-bit numbers: of normally distributed weights, or floating point."""
    double: bool = True
    """Quantise the quantisation constants too."""


class Orpo(Spec):
    """Odds ratio preference optimization (arXiv 2403.07691)."""

    weight: Annotated[float, Field(ge=0)] = 0.1
    """The paper's lambda, TRL's beta: the log's loss = nll_loss - weight * log_odds_ratio."""


class DeepSpeed(Spec):
    """ZeRO (arXiv 1910.02054): 1 shards the optimizer states, 2 also gradients, 3 also weights."""

    stage: Literal[1, 2, 3] = 2
    """What the processes share: optimizer states (1), gradients too (2), weights too (3)."""
    offload_optimizer: bool = False
    """Keep the optimizer's states in the CPU's memory, and update there."""
    offload_parameters: bool = False
    """Stage 3 alone: keep the weights in the CPU's memory."""

    @model_validator(mode="after")
    def _offload_fits(self) -> "DeepSpeed":
        if self.offload_parameters and self.stage != 3:
            raise ValueError("offload_parameters needs stage: 3, which alone shards the weights")
        return self


class Launch(Spec):
    """On how many devices: each optimizer step's examples are dealt out among them, so that the
    effective batch and the loss curve stay the same but for the last bits of float sums."""

    processes: Annotated[int, Field(ge=1)] = 1
    """On each machine: one a GPU, or any number on a CPU."""
    machines: Annotated[int, Field(ge=1)] = 1
    """More than one meet at HARNESS_RENDEZVOUS (HOST:PORT), through torchrun."""


class Validation(Spec):
    """Held-out examples, whose loss is measured after training. Give share or file."""

    share: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Of the data set's records, drawn by `seed` before any is tokenised: the same for every model."""
    file: Data | None = None
    """A data set of its own, with the schema of the training data."""
    first: Annotated[int, Field(ge=1)] | None = None
    """Only the first so many of the file."""
    seed: Seed = 42
    """Draws the share."""
    over: LossOver = if_set("answers")
    """answers: the loss of the last answers alone; text: of whole texts, every turn and what the
    template writes included, as TRL's SFTTrainer evaluates texts without masking."""
    every_steps: Annotated[int, Field(ge=1)] | None = None
    """Measure it also during training."""

    @model_validator(mode="after")
    def _one_source(self) -> "Validation":
        if (self.share is None) == (self.file is None):
            raise ValueError("give either share or file")
        if self.first is not None and self.file is None:
            raise ValueError("first goes with file")
        return self


class Train(Spec):
    """Training of a causal language model: what is trained (method), and towards what (objective).

    The loss of a step is the mean over all its tokens that count, however they are split into
    micro-batches or among processes. Defaults are TRL 1.16's where it has one.
    """

    objective: Literal["sft", "orpo"] = "sft"
    """sft: the likelihood of the answers; orpo: of the chosen answers, and their odds over the
    rejected ones (preference data)."""
    method: Literal["full", "lora", "qlora"] = "full"
    """full: every weight; lora: adapters; qlora: adapters on a frozen base in 4 bits."""
    lora: Lora | None = None
    """With method lora or qlora; left open: Lora's defaults."""
    quantization: Quantization | None = None
    """With method qlora; left open: NF4 with double quantisation."""
    orpo: Orpo | None = None
    """With objective orpo."""
    train_on_prompt: bool = False
    """Count the prompt's tokens in the (NLL part of the) loss too, as TRL's ORPO does."""
    train_on_history: bool = False
    """Count the answers of earlier turns too, as LLaMA-Factory does."""
    optimizer: Optimizer = "adamw"
    """8bit: its states in 8 bits; paged: they may move to the CPU's memory. Both are bitsandbytes'."""
    learning_rate: Annotated[float, Field(gt=0)] = 2e-5
    """The highest, after the warm-up."""
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    """Of Adam: decay of the running means of gradients and of their squares."""
    epsilon: Annotated[float, Field(gt=0)] = 1e-8
    """Of Adam: added to the denominator."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Of matrices; biases and norms are left out, but by DeepSpeed's own optimizer."""
    max_grad_norm: Annotated[float, Field(gt=0)] | None = 1.0
    """null: no clipping."""
    scheduler: Scheduler = "linear"
    """warmup_lr is DeepSpeed's WarmupLR: up to the learning rate by the logarithm of the step, then
    constant."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Optimizer steps in which the learning rate rises."""
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Of all steps, rounded up; in place of warmup_steps."""
    epochs: Annotated[float, Field(gt=0, le=100_000)] | None = 3.0
    """Passes over the data set."""
    steps: Annotated[int, Field(ge=1)] | None = None
    """Optimizer steps, in place of epochs."""
    batch_size: Annotated[int, Field(ge=1)] = 8
    """Examples in one micro-batch, over all processes; batch_size * accumulation make a step."""
    accumulation: Annotated[int, Field(ge=1)] = 1
    """Micro-batches of an optimizer step; its examples are dealt out to them by their lengths."""
    cutoff_length: Annotated[int, Field(ge=2)] = 1024
    """Tokens; longer examples are cut, counted and shown."""
    max_prompt_length: Annotated[int, Field(ge=1)] | None = if_set(None)
    """Tokens of a pair's prompt where it is too long with the longer answer: the last so many stay, and
    answers still too long are cut to the rest, as in TRL's ORPOTrainer. Left open: the whole text is
    cut."""
    truncation_side: Literal["right", "left"] = "right"
    """Where they are cut."""
    truncation: Literal["whole", "shared", "shared@2024-04"] = "whole"
    """whole: the example is cut as one text. shared: prompt and answer lose alike, each at its right,
    turn by turn, as in LLaMA-Factory today (release 0.9.3 and later); shared@2024-04: as in its
    releases up to 0.7.1."""
    tokenize: Literal["apart", "together"] = "apart"
    """apart: prompt and answer each for itself, as LLaMA-Factory. together: as one text, whose first
    tokens, as many as the prompt alone has, are the prompt, as Stanford Alpaca and TRL."""
    append_end: bool = True
    """Whether the answer is followed by its end. false: the model does not learn to end, as with TRL's
    SFTTrainer of 2023, which left texts as they were."""
    packing: bool = True
    """Lay a micro-batch's examples end to end, without padding and without attention from one to
    another. It changes no example, no step and no loss, only the last bits of float sums."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16: what is trained stays in float32, the arithmetic and frozen weights are bfloat16."""
    tf32: bool = False
    """On a GPU of sm_80 (Ampere) or newer: with precision float32, products of numbers rounded to
    TF32's 11 significant bits, several times as fast. Answers and judging in float32 never are."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass: slower, in less memory."""
    liger_kernels: bool = False
    """On a GPU: fused norms, rotary embeddings and activations, from the liger-kernel package."""
    deepspeed: DeepSpeed | None = None
    """Train under DeepSpeed."""
    launch: Launch = Launch()
    """Processes and machines."""
    validation: Validation | None = None
    """Measure the loss on held-out examples."""
    merge_micro_batches: bool = Field(default=True, json_schema_extra=NOT_KEY)
    """On one GPU, run as many of a step's packed micro-batches at once as its memory has room for by
    the estimate, unless there is dropout. It changes the last bits of float sums; the manifest says how
    many. false: always batch_size examples."""
    deterministic: bool = True
    """On a GPU, only kernels that give the same bits each time; slower. A model that needs an operator
    without such a kernel is refused."""
    seed: Seed = 42
    """Of the examples' order, new weights and dropout."""
    keep: list[Annotated[int, Field(ge=1)]] = if_set([])
    """Steps after which the weights are kept too, beside those of the last one: what eval.checkpoint
    may name. Rows with the same list share the training. It goes with steps, not epochs."""
    threads: Annotated[int, Field(ge=1)] | None = None
    """CPU threads; the last bits of a float sum depend on it. Left open: what the machine has."""
    checkpoint_steps: Annotated[int, Field(ge=1)] | None = Field(
        default=None, json_schema_extra=NOT_KEY
    )
    """Left open: as often as costs less than 3 % of the time."""

    def of_gpus_alone(self) -> str:
        """What only a GPU can carry out, and why, in words; empty where nothing is."""
        if self.liger_kernels:
            return "train.liger_kernels: they run on a GPU"
        return "train.tf32: it is a format of GPUs" if self.tf32 else ""

    @model_validator(mode="before")
    @classmethod
    def _fill_in_parts(cls, value: Any) -> Any:
        """The parts that a method or an objective needs get their defaults; steps replace epochs."""
        if not isinstance(value, dict):
            return value
        filled = dict(value)
        if filled.get("method") in ("lora", "qlora") and filled.get("lora") is None:
            filled["lora"] = {}
        if filled.get("method") == "qlora" and filled.get("quantization") is None:
            filled["quantization"] = {}
        if filled.get("objective") == "orpo" and filled.get("orpo") is None:
            filled["orpo"] = {}
        if filled.get("steps") is not None:
            filled.setdefault("epochs", None)
        return filled

    @model_validator(mode="after")
    def _fits_together(self) -> "Train":
        for name, needs, is_there in (
            ("lora", "method: lora or qlora", self.method in ("lora", "qlora")),
            ("quantization", "method: qlora", self.method == "qlora"),
            ("orpo", "objective: orpo", self.objective == "orpo"),
        ):
            if getattr(self, name) is not None and not is_there:
                raise ValueError(f"{name} has no effect without {needs}")
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give either epochs or steps, and null for one that is inherited")
        if self.keep:
            self._check_keep()
        if self.truncation != "whole" and self.truncation_side != "right":
            raise ValueError(f"truncation_side has no effect with truncation: {self.truncation}")
        if self.truncation != "whole" and self.objective == "orpo":
            raise ValueError(f"truncation: {self.truncation} is for objective: sft")
        if self.max_prompt_length is not None:
            self._check_prompt_length(self.max_prompt_length)
        warmup = self.warmup_steps or self.warmup_ratio
        if self.scheduler == "constant" and warmup:
            raise ValueError("a constant schedule has no warm-up: say constant_with_warmup")
        if self.warmup_steps and self.warmup_ratio is not None:
            raise ValueError("give either warmup_steps or warmup_ratio")
        if self.tf32 and self.precision == "bfloat16":
            raise ValueError("tf32 has no effect with precision: bfloat16, which is faster still")
        if self.deepspeed is not None:
            self._check_deepspeed(self.deepspeed)
        return self

    def _check_prompt_length(self, most: int) -> None:
        if self.objective != "orpo":
            raise ValueError("max_prompt_length is for objective: orpo")
        if self.truncation_side != "right":
            raise ValueError("truncation_side has no effect with max_prompt_length")
        if most >= self.cutoff_length:
            raise ValueError(
                f"max_prompt_length: {most} leaves no room for an answer within cutoff_length: "
                f"{self.cutoff_length}"
            )

    def _check_keep(self) -> None:
        if self.steps is None:
            raise ValueError(
                "keep needs steps: how many steps the epochs make is not known beforehand"
            )
        if self.keep != sorted(set(self.keep)):
            raise ValueError("keep: give each step once, in their order")
        if self.keep[-1] >= self.steps:
            raise ValueError(
                f"keep: step {self.keep[-1]} is not before the last one, {self.steps}, whose weights "
                "are the model and need no mention"
            )

    def _check_deepspeed(self, deepspeed: DeepSpeed) -> None:
        if self.method == "qlora" and deepspeed.stage == 3:
            raise ValueError("ZeRO stage 3 cannot shard a quantised base: take stage 2")
        if self.optimizer not in ("adamw", "adamw_8bit"):
            raise ValueError(
                f"under DeepSpeed the optimizer is adamw or adamw_8bit, not {self.optimizer}"
            )
        if self.optimizer == "adamw_8bit" and deepspeed.offload_optimizer:
            raise ValueError("an 8-bit optimizer has nothing for the CPU: drop offload_optimizer")
