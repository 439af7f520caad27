"""What DeepSpeed is told, and the learning rates of its WarmupLR."""

import math

from harness.spec.train import Train


def config(params: Train) -> dict[str, object] | None:
    """DeepSpeed's configuration for these parameters; None where the row runs without it."""
    if params.deepspeed is None:
        return None
    zero: dict[str, object] = {"stage": params.deepspeed.stage}
    if params.deepspeed.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu"}
    if params.deepspeed.offload_parameters:
        zero["offload_param"] = {"device": "cpu"}
    if params.deepspeed.stage == 3:
        zero["stage3_gather_16bit_weights_on_model_save"] = True
    settings: dict[str, object] = {
        "zero_optimization": zero,
        "bf16": {"enabled": params.precision == "bfloat16"},
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": params.accumulation,
        "gradient_clipping": params.max_grad_norm or 0.0,
        "zero_allow_untested_optimizer": True,
    }
    if params.optimizer == "adamw":
        settings["optimizer"] = {
            "type": "AdamW",
            "params": {
                "lr": params.learning_rate,
                "betas": list(params.betas),
                "eps": params.epsilon,
                "weight_decay": params.weight_decay,
                # With the states in the CPU's memory DeepSpeed takes its own CPUAdam.
                "torch_adam": not params.deepspeed.offload_optimizer,
            },
        }
    return settings


def warmup_lr(step: int, warmup_steps: int) -> float:
    """The share of the learning rate at an optimizer step (from 0), as DeepSpeed's WarmupLR gives it
    by default: log(step) / log(warmup_steps), so that the first two steps are at 0."""
    if step < 1:
        return 0.0
    if step > warmup_steps:
        return 1.0
    return math.log(step) / math.log(max(2, warmup_steps))
