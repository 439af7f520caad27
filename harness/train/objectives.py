"""What training minimises: the answers' negative log-likelihood, or ORPO's sum of it and the odds."""

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from harness.spec.train import Train
from harness.train.batches import MicroBatch

SFT_PARTS = ("loss",)
ORPO_PARTS = (
    "loss", "nll_loss", "log_odds_ratio", "log_odds_chosen", "rewards/chosen", "rewards/rejected",
    "rewards/margins", "rewards/accuracies",
)  # fmt: skip
"""TRL's names: log_odds_chosen is the log of the odds ratio, log_odds_ratio its log sigmoid."""


def parts_of(params: Train) -> tuple[str, ...]:
    """Names of what `loss_parts` returns, as they stand in the training log."""
    return ORPO_PARTS if params.objective == "orpo" else SFT_PARTS


def loss_parts(model: Any, batch: MicroBatch, params: Train) -> Tensor:
    """This micro-batch's share of the step's loss, and of what else is logged; in nats.

    Shares add up over a step's micro-batches and processes. Shape: (parts,); only the first has a
    gradient.
    """
    if params.objective == "sft":
        total = model(**batch.inputs, label_at=batch.label_at, targets=batch.targets)
        return (total * (batch.weight / batch.step_tokens)).reshape(1)
    assert params.orpo is not None  # Train fills it in
    nll = model(**batch.inputs, label_at=batch.label_at, targets=batch.targets, each=True)
    return _orpo(nll, batch, params.orpo.weight)


def _orpo(nll: Tensor, batch: MicroBatch, weight: float) -> Tensor:
    """ORPO's objective (arXiv 2403.07691, equations 6 and 7), the odds by TRL's own formula.

    nll: (labels,). The likelihood of an answer is the mean over its tokens, as in the paper.
    """
    from trl.experimental.orpo import ORPOTrainer

    likelihood = torch.where(batch.counted, nll, 0.0).sum() / batch.step_tokens
    answer = batch.answer.to(nll.dtype)
    zeros = nll.new_zeros(batch.sequences)
    sums = zeros.index_add(0, batch.sequence, -nll * answer)
    means = sums / zeros.index_add(0, batch.sequence, answer)
    chosen, rejected = means[0::2], means[1::2]
    settings: Any = SimpleNamespace(beta=1.0, accelerator=SimpleNamespace(device=nll.device))
    log_sigmoid, better, worse, _, log_odds = ORPOTrainer.odds_ratio_loss(
        settings, chosen, rejected
    )
    share = 1 / batch.step_examples
    log_odds_ratio = log_sigmoid.sum() * share
    logged = [
        likelihood.detach(),
        log_odds_ratio.detach(),
        log_odds.detach() * len(chosen) * share,
        weight * better.sum() * share,
        weight * worse.sum() * share,
        weight * (better - worse).sum() * share,
        (better > worse).sum() * share,
    ]
    return torch.stack([likelihood - weight * log_odds_ratio, *logged]) * batch.weight
