"""TRL's SFTTrainer, fed with our own micro-batches and loss, logged and checkpointed our way."""

from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from datasets import Dataset
from peft.helpers import disable_input_dtype_casting
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from harness.artefact import events
from harness.common.device_faults import memory_for
from harness.errors import InputError
from harness.modeling.load import quiet_peft
from harness.modeling.memory import fit as fitting
from harness.modeling.memory import shapes
from harness.spec.train import Train
from harness.train import arithmetic, checkpoints, deepspeed, micro_batching
from harness.train import model as models
from harness.train.batches import MicroBatch, Schedule
from harness.train.callback import Watch
from harness.train.data import Data, EncodedExamples
from harness.train.held_out import BATCH_TOKENS, held_out_loss
from harness.train.objectives import loss_parts
from harness.train.schedule import Step, plan_steps

OPTIMIZERS = {
    "adamw": "adamw_torch_fused",
    "adamw_8bit": "adamw_bnb_8bit",
    "paged_adamw": "paged_adamw_32bit",
    "paged_adamw_8bit": "paged_adamw_8bit",
    "adafactor": "adafactor",
    "sgd": "sgd",
}
"""The specs' names -> transformers' own."""
LIGHTER = "a smaller model, or "
GPU_LOG_STEPS = 10
"""On a GPU the losses stay there for so many steps: each fetch waits for the device."""


class Trainer(SFTTrainer):  # type: ignore[misc]
    """SFTTrainer on planned micro-batches; it sends nothing anywhere.

    Each process's loss is its share of the step's, times the number of processes, since the
    gradients of processes are averaged.
    """

    loss_is_scaled_for_ga = True
    """The loss is a share of the whole step's already."""

    def __init__(self, schedule: Schedule, params: Train, **settings: Any) -> None:
        self.schedule, self.params = schedule, params
        self.parts: list[Tensor] = []
        """Of each micro-batch since the last log: its share of the step's loss and its parts."""
        super().__init__(**settings)

    def get_train_dataloader(self) -> "DataLoader[MicroBatch]":
        return self.schedule.loader()

    def get_batch_samples(
        self, epoch_iterator: Iterator[MicroBatch], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, MicroBatch]], None]:
        return [{"batch": next(epoch_iterator)} for _ in range(num_batches)], None

    def compute_loss(
        self, model: Any, inputs: dict[str, MicroBatch], *args: Any, **kwargs: Any
    ) -> Tensor:
        batch = inputs["batch"].to(self.args.device)
        parts = loss_parts(model, batch, self.params)
        self.parts.append(parts.detach())
        return parts[0] * self.args.world_size

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        if self.params.scheduler == "warmup_lr":
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                self.optimizer if optimizer is None else optimizer,
                partial(
                    deepspeed.warmup_lr,
                    warmup_steps=self.args.get_warmup_steps(num_training_steps),
                ),
            )
            return self.lr_scheduler
        return super().create_scheduler(num_training_steps, optimizer)

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        with memory_for("saving a checkpoint", checkpoints.way_on):
            super()._save_checkpoint(*args, **kwargs)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """A checkpoint goes without the tokenizer: one that cannot be written again stops none."""
        tokenizer = self.processing_class  # type: ignore[has-type]
        self.processing_class = None
        try:
            super()._save(output_dir, state_dict)
        finally:
            self.processing_class = tokenizer

    def _send_telemetry(self) -> None:
        pass

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        pass


def train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    data: Data,
    params: Train,
    work: Path,
    log: Path,
    device: str,
    rank: int = 0,
    processes: int = 1,
) -> tuple[Trainer, Watch]:
    """Train `model` in place, from the last finished checkpoint in `work` where there is one."""
    folder = work / "checkpoints"
    with memory_for("trying the model with two texts", partial(checkpoints.way_on, other=LIGHTER)):
        packed = models.choose_path(model, params.packing, params.precision, data.train.longest())
    if params.packing and not packed and rank == 0:
        events.note("this model's attention cannot be packed: batches are padded")
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    sizes, counted = data.train.sizes().tolist(), data.train.counted().tolist()
    room = _room(device)
    as_packed = params.model_copy(update={"packing": packed})
    deal = _merged(as_packed, model, sizes, room and room.free, processes)
    alone = _merged(as_packed, model, sizes, room and room.alone, processes)
    examples = f"{deal.batch_size} examples"
    if deal.accumulation != params.accumulation:
        events.note(f"{examples} at once, as the GPU has room for them by the estimate")
    steps = plan_steps(deal, sizes, counted, processes)
    resumed = checkpoints.newest(folder)
    if resumed and rank == 0:
        events.note(f"going on from the checkpoint at step {resumed.step} of {len(steps)}")
    trainer = _trainer(
        schedule=Schedule(data.train, steps, packed, pad, rank, processes),
        params=params,
        model=model,
        args=_arguments(deal, folder, device, steps, processes),
        # Never read: it only tells SFTTrainer that labels are given and nothing is to be prepared.
        train_dataset=Dataset.from_dict({"input_ids": [[0]], "labels": [[0]]}),
        processing_class=tokenizer,
        peft_config=models.lora_config(model, params),
    )
    if rank == 0:
        is_crowded = deal.accumulation != alone.accumulation
        before = resumed.step if resumed else 0
        micro_batching.begin(work, micro_batching.Dealt(before, deal.accumulation, is_crowded))
    _keep_trained_weights_whole(trainer.model)
    trainer.remove_callback(PrinterCallback)
    held_out = data.held_out
    measure = None if held_out is None else partial(_measure, data=held_out, packed=packed, pad=pad)
    watch = Watch(trainer, log, steps, data.train, resumed, rank, measure)
    trainer.add_callback(watch)
    casts_off = disable_input_dtype_casting(trainer.model, active=_is_cast_by_autocast(params))
    is_merged = deal.accumulation != params.accumulation
    memory = (
        memory_for(f"training on {examples} at once", partial(_smaller, params))
        if is_merged
        else nullcontext()
    )
    with watch, checkpoints.honest_disk_faults(work), arithmetic.refusals_told(), casts_off, memory:
        trainer.train(resume_from_checkpoint=str(resumed.folder) if resumed else None)
    watch.check_counts(params, data)
    return trainer, watch


def _smaller(params: Train, of_the_cpu: bool) -> str:
    """Empty where it was not the GPU's memory: what else is advised holds then."""
    less = (
        "The estimate had seen room. Set train.merge_micro_batches: false, for "
        f"{params.batch_size} at once; the training goes on from its last checkpoint."
    )
    return "" if of_the_cpu else less


def _shorter(data: EncodedExamples, of_the_cpu: bool) -> str:
    shorter = "shorter ones (train.validation), with which the training begins anew, or "
    return (
        f"{BATCH_TOKENS} tokens are measured at a time, or one example: the longest held out has "
        f"{data.longest()}, and none is cut. {checkpoints.way_on(of_the_cpu, shorter)}"
    )


def _merged(
    params: Train, model: PreTrainedModel, sizes: list[int], room: float | None, processes: int
) -> Train:
    """With the micro-batches that this process runs, where it is free to choose: without padding, and
    without dropout, whose draws would be others. `room`: bytes of the GPU; None without one."""
    config = model.config.to_dict()
    dropout = [value for name, value in config.items() if "drop" in name]
    shape = shapes.from_config(config)
    if (
        room is None
        or shape is None
        or processes > 1
        or params.deepspeed is not None
        or not (params.merge_micro_batches and params.packing)
        or any(dropout)
        or (params.lora is not None and params.lora.dropout)
    ):
        return params
    return fitting.merged(params, shape, room, sizes)


class _Room(NamedTuple):
    """Bytes of the GPU: what this training can have now, and what it could alone on it."""

    free: float
    alone: float


def _room(device: str) -> _Room | None:
    """What is free, and what this process holds already."""
    if device != "cuda":
        return None
    free, total = torch.cuda.mem_get_info()
    alone = fitting.USABLE * total
    return _Room(min(free + torch.cuda.memory_reserved(), alone), alone)


def _is_cast_by_autocast(params: Train) -> bool:
    """Whether adapters get the same inputs without PEFT's own cast to float32, which autocast undoes.
    Dropout between the two would draw, and round, in another type."""
    lora = params.lora
    half = params.precision == "bfloat16" and params.deepspeed is None
    return half and lora is not None and not lora.dropout


def _trainer(**settings: Any) -> Trainer:
    try:
        with quiet_peft():
            return Trainer(**settings)
    except ValueError as e:
        if settings["peft_config"] is None:
            raise
        raise InputError(
            f"this model takes no such adapters: {e}",
            "Name the layers in train.lora.target_modules.",
        ) from e


def _measure(
    trainer: Trainer, data: EncodedExamples, packed: bool, pad: int
) -> tuple[float, float, int, int]:
    """The held-out loss. The processes share the work, but where each holds a part of the weights
    only (ZeRO-3): there all take every batch, in step."""
    deepspeed_settings = trainer.params.deepspeed
    with memory_for("measuring the held-out loss", partial(_shorter, data)):
        if deepspeed_settings is not None and deepspeed_settings.stage == 3:
            return held_out_loss(trainer.model_wrapped, data, packed, pad)
        # Not the wrapped model: it would wait for the others in each forward pass.
        model = trainer.accelerator.unwrap_model(trainer.model_wrapped, keep_fp32_wrapper=True)
        rank, processes = trainer.args.process_index, trainer.args.world_size
        return held_out_loss(model, data, packed, pad, rank, processes)


def _keep_trained_weights_whole(model: Any) -> None:
    """In float32: TRL puts the adapters of a quantised base into half precision, where a small
    update is lost."""
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()


def _arguments(
    params: Train, folder: Path, device: str, steps: list[Step], processes: int
) -> SFTConfig:
    return SFTConfig(
        output_dir=str(folder),
        learning_rate=params.learning_rate,
        max_steps=len(steps),
        per_device_train_batch_size=1,
        gradient_accumulation_steps=params.accumulation,
        optim=OPTIMIZERS[params.optimizer],
        lr_scheduler_type="constant" if params.scheduler == "warmup_lr" else params.scheduler,
        warmup_steps=_warmup_steps(params, len(steps)),
        weight_decay=params.weight_decay,
        adam_beta1=params.betas[0],
        adam_beta2=params.betas[1],
        adam_epsilon=params.epsilon,
        max_grad_norm=params.max_grad_norm or 0.0,
        bf16=params.precision == "bfloat16",
        activation_checkpointing=params.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False},
        use_liger_kernel=params.liger_kernels,
        liger_kernel_config={"fused_linear_cross_entropy": False} if params.liger_kernels else None,
        deepspeed=deepspeed.config(params),
        ddp_find_unused_parameters=False,
        ddp_broadcast_buffers=False,
        ddp_backend=("gloo" if device == "cpu" else "nccl") if processes > 1 else None,
        seed=params.seed,
        data_seed=params.seed,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        dataloader_num_workers=0,
        dataloader_pin_memory=False,
        use_cpu=device == "cpu",
        logging_steps=1 if device == "cpu" else GPU_LOG_STEPS,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=params.checkpoint_steps or len(steps) + 1,
        report_to="none",
        disable_tqdm=True,
    )


def _warmup_steps(params: Train, steps: int) -> int:
    """A share of the steps is rounded up."""
    if params.warmup_ratio is None:
        return params.warmup_steps
    return -int(-params.warmup_ratio * steps // 1)
