"""TRL's SFTTrainer, fed with our own tokens and labels, logged and checkpointed our way."""

import json
import math
import time
from pathlib import Path
from typing import Any, TextIO

from datasets import Dataset
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from harness import events
from harness.errors import HarnessError
from harness.spec.models import Train
from harness.train import checkpoints
from harness.train.data import Encoded, label_count

PROGRESS_S = 0.2


class Trainer(SFTTrainer):  # type: ignore[misc]
    """SFTTrainer that counts the tokens of each optimizer step and sends nothing anywhere."""

    step_tokens = 0
    """Tokens of the present step that enter the loss."""
    step_prompt_tokens = 0
    """The present step's other tokens, padding apart."""

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        batches, items = super().get_batch_samples(*args, **kwargs)
        self.step_tokens = sum(label_count(row) for b in batches for row in b["labels"].tolist())
        real = sum(int(b["attention_mask"].sum()) for b in batches)
        self.step_prompt_tokens = real - self.step_tokens
        return batches, items

    def _send_telemetry(self) -> None:
        pass

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        pass


class Watch(TrainerCallback):  # type: ignore[misc]
    """Writes trainer_log.jsonl, tells the progress, stops on a loss that is no number, and marks
    each checkpoint once it is finished."""

    def __init__(
        self, trainer: Trainer, log: Path, steps: int, resumed: checkpoints.Finished | None
    ):
        self.trainer, self.path, self.steps = trainer, log, steps
        self.tokens, self.prompt_tokens = _last_counts(log, resumed)
        self.seen_before = self.tokens + self.prompt_tokens
        self.file: TextIO = log.open("a", encoding="utf-8")
        self.started = time.monotonic()
        self.ended: float | None = None
        self.told = 0.0

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self.started = time.monotonic()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.tokens += self.trainer.step_tokens
        self.prompt_tokens += self.trainer.step_prompt_tokens
        if state.global_step >= self.steps:
            # The model itself is written next. Going on from a last checkpoint would train on.
            control.should_save = False
            self.ended = time.monotonic()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float],
        **kwargs: Any,
    ) -> None:
        if "loss" not in logs:
            return
        for what, value in (
            ("loss", logs["loss"]),
            ("gradient's norm", logs.get("grad_norm", 0.0)),
        ):
            if not math.isfinite(value):
                raise HarnessError(
                    f"training diverged: the {what} is {value} "
                    f"at step {state.global_step} of {self.steps}",
                    "Lower train.learning_rate, or add train.warmup_steps.",
                )
        line = {
            "step": state.global_step,
            "epoch": state.epoch,
            "loss": logs["loss"],
            "learning_rate": logs["learning_rate"],
            "tokens": self.tokens,
            "prompt_tokens": self.prompt_tokens,
        }
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()
        self._tell(state.global_step, logs["loss"])

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        checkpoints.seal(folder, state.global_step, self.path)

    def tokens_per_second(self) -> float:
        """Of this run alone, prompts included, padding left out."""
        seen = self.tokens + self.prompt_tokens - self.seen_before
        return seen / max(self.seconds(), 1e-9)

    def seconds(self) -> float:
        """Since this run's first step began; until the last step, once it is done."""
        return (self.ended or time.monotonic()) - self.started

    def _tell(self, step: int, loss: float) -> None:
        now = time.monotonic()
        if now - self.told >= PROGRESS_S or step == self.steps:
            self.told = now
            info = {"loss": round(loss, 4), "tokens_per_second": round(self.tokens_per_second())}
            events.progress("train", step, self.steps, "steps", **info)


def train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    data: Encoded,
    params: Train,
    work: Path,
    log: Path,
    use_cpu: bool,
) -> Watch:
    """Train `model` in place, from the last finished checkpoint in `work` where there is one."""
    folder = work / "checkpoints"
    steps = expected_steps(params, len(data.input_ids))
    resumed = checkpoints.last_finished(folder)
    _shorten(log, resumed.log_bytes if resumed else 0)
    if resumed:
        events.note(f"going on from the checkpoint at step {resumed.step} of {steps}")
    trainer = Trainer(
        model=model,
        args=_arguments(params, folder, use_cpu),
        # Labels given and preparation skipped: TRL takes the mask as it is.
        train_dataset=Dataset.from_dict({"input_ids": data.input_ids, "labels": data.labels}),
        processing_class=tokenizer,
    )
    trainer.remove_callback(PrinterCallback)
    watch = Watch(trainer, log, steps, resumed)
    trainer.add_callback(watch)
    with watch.file, checkpoints.honest_disk_faults(work):
        trainer.train(resume_from_checkpoint=str(resumed.folder) if resumed else None)
    _check_counts(trainer.state.global_step, steps, watch, params, data)
    return watch


def expected_steps(params: Train, examples: int) -> int:
    """Optimizer steps; an epoch's last batch and its last accumulation may be smaller."""
    batches = math.ceil(examples / params.batch_size)
    return params.steps or math.ceil(params.epochs * math.ceil(batches / params.accumulation))


def _arguments(params: Train, folder: Path, use_cpu: bool) -> SFTConfig:
    return SFTConfig(
        output_dir=str(folder),
        learning_rate=params.learning_rate,
        num_train_epochs=params.epochs,
        max_steps=params.steps or -1,
        per_device_train_batch_size=params.batch_size,
        gradient_accumulation_steps=params.accumulation,
        lr_scheduler_type=params.scheduler,
        warmup_steps=params.warmup_steps,
        weight_decay=params.weight_decay,
        adam_beta1=params.betas[0],
        adam_beta2=params.betas[1],
        max_grad_norm=params.max_grad_norm,
        bf16=params.precision == "bfloat16",
        activation_checkpointing=params.gradient_checkpointing,
        seed=params.seed,
        data_seed=params.seed,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        dataloader_num_workers=0,
        dataloader_pin_memory=not use_cpu,
        use_cpu=use_cpu,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=params.checkpoint_steps,
        report_to="none",
        disable_tqdm=True,
    )


def _check_counts(steps_done: int, steps: int, watch: Watch, params: Train, data: Encoded) -> None:
    """Steps and tokens must be what batch size, epochs and the data set say."""
    if steps_done != steps:
        raise HarnessError(f"{steps_done} optimizer steps were run; the parameters say {steps}")
    whole_epochs = params.steps is None and params.epochs == int(params.epochs)
    if whole_epochs and watch.tokens != int(params.epochs) * data.label_tokens():
        raise HarnessError(
            f"{watch.tokens} tokens were trained on; {params.epochs:g} epochs of "
            f"{data.label_tokens()} are {int(params.epochs) * data.label_tokens()}"
        )


def _shorten(log: Path, length: int) -> None:
    """Drop what the log says of steps that will be run again."""
    if log.exists():
        with log.open("r+b") as file:
            file.truncate(length)


def _last_counts(log: Path, resumed: checkpoints.Finished | None) -> tuple[int, int]:
    if resumed is None:
        return 0, 0
    line = json.loads(log.read_text(encoding="utf-8").splitlines()[-1])
    return line["tokens"], line["prompt_tokens"]
