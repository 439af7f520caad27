"""The environment variables of a stage's process: what it is given, and what of the caller's it gets.

Set where a process begins and by no import: libraries read them once, when they are imported.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping

HUB_STAGES = ("fetch", "export")
"""The only ones that speak to the hub; all others find models and data sets as folders."""
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
QUIET = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
    # Some libraries call torch.compile when they are imported, at a cost of seconds.
    "TORCHDYNAMO_DISABLE": "1",
}
ENDPOINT, TOKEN = "HF_ENDPOINT", "HF_TOKEN"
HUB = (ENDPOINT, TOKEN, f"{TOKEN}_FILE")
NO_PROXY = ("NO_PROXY", "no_proxy")
PROXY = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")


def given(stage: str) -> dict[str, str]:
    """What a stage's process is given, whatever the caller's variables say."""
    return QUIET if stage in HUB_STAGES else {**QUIET, **OFFLINE}


def withheld(stage: str, network: bool) -> set[str]:
    """Those of the caller's variables that are none of a stage's business: where the hub is and the
    token for it, and the way to a network."""
    hub: Iterable[str] = () if stage in HUB_STAGES else HUB
    return {*hub, *(() if network else (*PROXY, *NO_PROXY))}


@contextlib.contextmanager
def restored(more: Mapping[str, str] | None = None) -> Iterator[None]:
    """This process's variables with `more` for a while, and afterwards as they were before, whatever
    was written into them meanwhile."""
    before = dict(os.environ)
    os.environ.update(more or {})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
