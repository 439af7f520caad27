"""How PyTorch computes on a GPU: the same bits each time or not, float32 products in TF32 or not."""

import contextlib
import os
import re
from collections.abc import Iterator

import torch
from torch import nn

from harness.errors import InputError
from harness.modeling.load import set_tf32
from harness.spec.train import Train

WORKSPACE, WORKSPACES = "CUBLAS_WORKSPACE_CONFIG", (":4096:8", ":16:8")
"""Read when cuBLAS is first used; those with which its products are the same each time, says NVIDIA."""
ALGORITHM, RING = "NCCL_ALGO", "Ring"
"""Read when the processes meet. Along a ring gradients are summed in one order; in NVLink's switches
(NVLS), which NCCL may prefer, the order changes from call to call, as its authors say."""
REFUSED = re.compile(r"(\S+) does not have a deterministic implementation")
"""PyTorch's words for an operator that has only kernels whose bits differ from time to time."""
UNORDERED_LIGER = "LigerExperts"
"""Of what liger-kernel 0.8.5 puts into language models, the one whose kernel adds by atomics."""
TF32_SINCE = (8, 0)
"""Compute capability."""


def prepare(params: Train, processes: int) -> None:
    """Have this process compute on its GPU as the row says. To be called before it does.

    Raises InputError for a GPU without TF32 where the row asks for it, and for a setting of cuBLAS's
    that undoes the row's.
    """
    if params.deterministic:
        if os.environ.setdefault(WORKSPACE, WORKSPACES[0]) not in WORKSPACES:
            raise InputError(
                f"{WORKSPACE} is {os.environ[WORKSPACE]}, with which products differ from time to time",
                f"Unset it, or set it to {WORKSPACES[0]}; or set train.deterministic: false.",
            )
        if processes > 1:
            os.environ.setdefault(ALGORITHM, RING)
    # Not with warn_only, under which attention's kernels stay those that differ, without a fault.
    torch.use_deterministic_algorithms(params.deterministic)
    # Else each new tensor is filled first, at the cost of a kernel: that makes repeatable what reads
    # memory that was not written yet, and no operator of PyTorch's does.
    torch.utils.deterministic.fill_uninitialized_memory = False
    if params.tf32 and torch.cuda.get_device_capability() < TF32_SINCE:
        raise InputError(
            f"train.tf32: {torch.cuda.get_device_name()} has no TF32, which came with Ampere",
            "Set train.tf32: false.",
        )
    set_tf32(params.tf32)


def keep_angles_whole(model: nn.Module) -> None:
    """Have rotary embeddings' angles computed in float32 all the same: TF32 rounds frequencies to 11
    bits, with which a token 2,000 places away would be turned by up to half a radian more or less."""
    for module in model.modules():
        if "rotary" in type(module).__name__.lower():
            module.register_forward_pre_hook(lambda *_: set_tf32(False))
            module.register_forward_hook(lambda *_: set_tf32(True), always_call=True)


def check_refused(fault: BaseException) -> None:
    """Raises InputError where the fault is an operator without a kernel of the same bits each time."""
    operator = REFUSED.search(str(fault))
    if operator is not None and isinstance(fault, RuntimeError):
        raise InputError(
            f"train.deterministic: this model needs {operator[1]}, and PyTorch has no kernel of it "
            "that gives the same bits each time",
            "Set train.deterministic: false; the manifest then says so.",
        ) from fault


@contextlib.contextmanager
def refusals_told() -> Iterator[None]:
    """See check_refused; other faults stay as they are."""
    try:
        yield
    except RuntimeError as fault:
        check_refused(fault)
        raise


def why_not_repeatable(device: str, params: Train, model: nn.Module, processes: int) -> list[str]:
    """What may give the same training on the same machine other bits another time, in words."""
    if device == "cpu":
        return []
    if not params.deterministic:
        return ["train.deterministic: false"]
    reasons = []
    if any(module._get_name() == UNORDERED_LIGER for module in model.modules()):
        reasons.append("Liger's kernel for experts adds gradients in no fixed order")
    if params.launch.machines > 1:
        reasons.append("the order in which several machines' gradients are summed is not fixed")
    elif processes > 1 and os.environ.get(ALGORITHM) != RING:
        algorithm = os.environ.get(ALGORITHM)
        reasons.append(
            f"{ALGORITHM} is {algorithm}: only along a {RING} is the order of sums fixed"
        )
    return reasons
