"""What is noted while a model trains: the log, the progress, checkpoints, a loss that is no number."""

import json
import math
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TextIO

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from harness.artefact import events
from harness.artefact.call import KEPT
from harness.errors import HarnessError
from harness.spec.train import Train
from harness.train import checkpoints
from harness.train.checkpoints import STOP
from harness.train.data import Data, EncodedExamples
from harness.train.model import gathered, write
from harness.train.objectives import parts_of
from harness.train.run import MODEL
from harness.train.schedule import Step

if TYPE_CHECKING:
    from harness.train.loop import Trainer

PROGRESS_S = 0.2
CHECKPOINT_SHARE = 0.02
"""Of the time, that checkpoints may take where no number of steps is given."""
SOONEST_S, LATEST_S = 20.0, 1800.0
"""Bounds of the time between two checkpoints; a slow disk must not put the next one off for ever."""
AGREE_STEPS = 10
"""Several processes decide so often, together, whether a checkpoint is due."""


class Watch(TrainerCallback):  # type: ignore[misc]
    """Writes trainer_log.jsonl, tells the progress, stops on a loss that is no number, and seals
    each checkpoint once it is finished. Counts are of all processes, times of this one."""

    def __init__(
        self,
        trainer: "Trainer",
        log: Path,
        steps: list[Step],
        data: EncodedExamples,
        resumed: checkpoints.Finished | None,
        rank: int,
        measure: "Callable[[Trainer], tuple[float, float, int, int]] | None",
    ) -> None:
        self.trainer, self.path, self.steps = trainer, log, steps
        self.rank, self.measure = rank, measure
        self.sizes = data.sizes()
        self.logged = resumed.step if resumed else 0
        done = steps[: self.logged]
        self.tokens = sum(step.tokens for step in done)
        self.prompt_tokens = sum(self._all_tokens(step) for step in done) - self.tokens
        self.examples_seen = sum(step.examples for step in done)
        self.seen_before = self.tokens + self.prompt_tokens
        self.started = self.saved = time.monotonic()
        self.ended: float | None = None
        self.told = self.save_seconds = 0.0
        self.saves = 0
        self.saving = 0.0
        self.save_costs = (
            checkpoints.expected_seconds(trainer.model, log.parent) if rank == 0 else 0.0
        )
        """Seconds: of a checkpoint, expected and then as the last one was."""
        self.held_out: tuple[float, float, int, int] | None = None
        self.stopping = False
        """Whether a signal asked to stop: after the present step, with a checkpoint."""
        self.rates: list[float] = []
        """The learning rate of each step since the last log."""
        self.file: TextIO | None = None
        self.handlers: dict[int, Any] = {}

    def __enter__(self) -> "Watch":
        if self.rank == 0:
            self.file = self.path.open("a", encoding="utf-8")
        if (
            self.trainer.args.world_size == 1
            and threading.current_thread() is threading.main_thread()
        ):
            numbers = (signal.SIGINT, signal.SIGTERM)
            self.handlers = {n: signal.signal(n, self._stop) for n in numbers}
        return self

    def __exit__(self, *args: object) -> None:
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        if self.file is not None:
            self.file.close()

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self.stopping:
            raise KeyboardInterrupt
        self.stopping = True
        events.note("stopping after this step, with a checkpoint")

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self.started = self.saved = time.monotonic()

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self.rates.append(float(self.trainer.lr_scheduler.get_last_lr()[0]))

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        last = state.global_step >= len(self.steps)
        # The model itself is written after the last step. Going on from there would train on.
        due = self._is_due(args, state)
        control.should_save = not last and (control.should_save or self.stopping or due)
        is_kept = state.global_step in self.trainer.params.keep
        if last or control.should_save or is_kept or self._is_measured(state):
            control.should_log = True
        if control.should_save:
            self.saving = time.monotonic()

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
        # Before a checkpoint of the same step: never one with a loss that is no number.
        self._flush(state, logs.get("grad_norm"))
        if state.global_step in self.trainer.params.keep:
            self._keep(state.global_step)
        if self._is_measured(state):
            self._measure(state.global_step)

    def _keep(self, step: int) -> None:
        """The weights after this step, for evaluations of it; all processes take part."""
        self.check_weights(step)
        state = gathered(self.trainer)
        if self.rank == 0:
            model = self.trainer.accelerator.unwrap_model(self.trainer.model)
            checkpoints.keep(
                self.path.parent / KEPT, step, lambda folder: write(model, folder / MODEL, state)
            )
        self.trainer.accelerator.wait_for_everyone()

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.trainer.accelerator.wait_for_everyone()
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if self.rank == 0:
            assert self.file is not None
            self.file.flush()
            checkpoints.seal(folder, state.global_step, self.path)
        self.trainer.accelerator.wait_for_everyone()
        self.saved = time.monotonic()
        self.save_costs = self.saved - self.saving
        self.save_seconds += self.save_costs
        self.saves += 1
        if self.stopping:
            raise KeyboardInterrupt

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any
    ) -> None:
        self.ended = time.monotonic()
        self.check_weights(len(self.steps))
        self._measure(state.global_step)

    def tokens_per_second(self) -> float:
        """Of this run alone, prompts included, padding left out."""
        tokens = self.tokens + self.prompt_tokens - self.seen_before
        return tokens / max(self.seconds(), 1e-9)

    def seconds(self) -> float:
        """Since this run's first step began; until the last step, once it is done."""
        return (self.ended or time.monotonic()) - self.started

    def check_weights(self, step: int) -> None:
        """A step's update shows in no loss yet; with weights that are no numbers nothing is written."""
        for weight in self.trainer.model.parameters():
            if weight.requires_grad and not bool(torch.isfinite(weight).all()):
                raise self._diverged("trained weights' value", math.nan, step, step)

    def check_counts(self, params: Train, data: Data) -> None:
        """Steps, examples and tokens must be what batch size, epochs and the data set say."""
        if self.logged != len(self.steps):
            raise HarnessError(f"{self.logged} of {len(self.steps)} optimizer steps were run")
        epochs = params.epochs
        if epochs is None or epochs != int(epochs):
            return
        for name, counted, each in (
            ("examples", self.examples_seen, len(data.train)),
            ("tokens in the loss", self.tokens, int(data.train.counted().sum())),
            ("tokens", self.tokens + self.prompt_tokens, int(self.sizes.sum())),
        ):
            if counted != int(epochs) * each:
                raise HarnessError(
                    f"{counted} {name} were trained on; {epochs:g} epochs of {each} are "
                    f"{int(epochs) * each}"
                )

    def _all_tokens(self, step: Step) -> int:
        return int(sum(self.sizes[i] for part in step.micro_batches for i in part))

    def _is_due(self, args: TrainingArguments, state: TrainerState) -> bool:
        """Whether enough time has gone by for a checkpoint to cost little of it. Several processes
        learn here, together, that they are to stop."""
        several = args.world_size > 1
        if several and state.global_step % AGREE_STEPS:
            return False
        wait = min(max(SOONEST_S, self.save_costs / CHECKPOINT_SHARE), LATEST_S)
        due = time.monotonic() - self.saved > wait
        if several:
            stopping = (self.path.parent / STOP).exists()
            decision = torch.tensor([int(due), int(stopping)], device=args.device)
            torch.distributed.broadcast(decision, 0)
            due, self.stopping = map(bool, decision.tolist())
        return due and self.trainer.params.checkpoint_steps is None

    def _flush(self, state: TrainerState, grad_norm: float | None) -> None:
        """Log every step since the last one logged; all processes take part."""
        steps = self.steps[self.logged : state.global_step]
        if not steps:
            return
        parts = self.trainer.parts
        each = len(parts) // len(steps)
        summed = torch.stack(parts).reshape(len(steps), each, -1).sum(1)
        if self.trainer.args.world_size > 1:
            torch.distributed.all_reduce(summed)
        parts.clear()
        rates, self.rates = self.rates, []
        names = parts_of(self.trainer.params)
        for place, (values, step, rate) in enumerate(
            zip(summed.tolist(), steps, rates, strict=True)
        ):
            more = {"learning_rate": rate}
            if grad_norm is not None and place == len(steps) - 1:
                more["grad_norm"] = grad_norm
            self._log_step(dict(zip(names, values, strict=True)), more, step)
        if grad_norm is not None and not math.isfinite(grad_norm):
            at = int(state.global_step)
            raise self._diverged("gradient's norm", grad_norm, at, at)
        if self.file is not None:
            self.file.flush()

    def _is_measured(self, state: TrainerState) -> bool:
        """Whether the held-out loss is due at this step; after the last one it always is."""
        validation = self.trainer.params.validation
        if validation is None or validation.every_steps is None:
            return False
        step = int(state.global_step)
        return step % validation.every_steps == 0 and step < len(self.steps)

    def _log_step(self, values: dict[str, float], more: dict[str, float], step: Step) -> None:
        number = self.logged + 1
        if not math.isfinite(values["loss"]):
            raise self._diverged("loss", values["loss"], number, number - 1)
        self.logged = number
        self.tokens += step.tokens
        self.prompt_tokens += self._all_tokens(step) - step.tokens
        self.examples_seen += step.examples
        line = {
            "step": number,
            "epoch": round(self.examples_seen / len(self.sizes), 6),
            **values,
            **more,
            "tokens": self.tokens,
            "prompt_tokens": self.prompt_tokens,
        }
        self._write(line)
        self._tell(number, values["loss"])

    def _measure(self, step: int) -> None:
        if self.measure is None:
            return
        self.held_out = self.measure(self.trainer)
        nats, bits, tokens, _ = self.held_out
        self._write(
            {"step": step, "held_out_loss": nats, "bits_per_byte": bits, "held_out_tokens": tokens}
        )

    def _write(self, line: Mapping[str, float]) -> None:
        if self.file is not None:
            self.file.write(json.dumps(line) + "\n")

    def _diverged(self, what: str, value: float, step: int, bad: int) -> HarnessError:
        """bad: the first step after whose update the weights are of no use."""
        folder = Path(self.trainer.args.output_dir)
        if self.rank == 0:
            checkpoints.drop_from(folder, bad)
        newest = checkpoints.newest(folder)
        good = f" The checkpoint at step {newest.step} is kept." if newest else ""
        return HarnessError(
            f"training diverged: the {what} is {value} at step {step} of {len(self.steps)}.{good}",
            "Lower train.learning_rate, or add train.warmup_steps.",
        )

    def _tell(self, step: int, loss: float) -> None:
        now = time.monotonic()
        if self.rank == 0 and (now - self.told >= PROGRESS_S or step == len(self.steps)):
            self.told = now
            info = {"loss": round(loss, 4), "tokens_per_second": round(self.tokens_per_second())}
            events.progress("train", step, len(self.steps), "steps", **info)
