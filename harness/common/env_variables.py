"""The environment variables of a stage's process: what it is given, and what of the caller's it gets.

Set where a process begins and by no import: libraries read them once, when they are imported.
"""

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from harness.errors import InputError

HUB_STAGES = ("fetch", "export")
"""The only ones that speak to the hub; all others find models and data sets as folders."""
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
QUIET = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
    # Some libraries call torch.compile when they are imported, at a cost of seconds.
    "TORCHDYNAMO_DISABLE": "1",
    # Else some of PyTorch's operators for the GPU are Triton's kernels, a rotary embedding's product
    # among them, and without a C compiler nearly every model stops there.
    "TORCH_DISABLE_NATIVE_JIT": "1",
}
ALLOCATOR = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
"""How PyTorch divides a GPU's memory; the second is the first one's older name."""
EXPANDABLE = {ALLOCATOR[0]: "expandable_segments:True"}
"""Batches differ in length: in blocks of one size each, memory is left that no later batch fits."""
ENDPOINT, TOKEN = "HF_ENDPOINT", "HF_TOKEN"
OLD_TOKEN = "HUGGING_FACE_HUB_TOKEN"
"""What the hub's client takes where TOKEN is not set."""
HUB = (ENDPOINT, TOKEN, f"{TOKEN}_FILE", OLD_TOKEN)
HUB_CLIENT = (
    f"{OLD_TOKEN}_FILE",
    "HF_TOKEN_PATH",
    "HF_OIDC_ID_TOKEN",
    "HF_OIDC_RESOURCE",
    "HUGGINGFACE_CO_STAGING",
)
"""What the hub's client reads besides."""
DIAGNOSIS = ("CUDA_LAUNCH_BLOCKING", "NCCL_DEBUG")
"""With what a GPU's fault is looked for: the caller's values reach a stage, in a container too."""
TF32 = ("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "NVIDIA_TF32_OVERRIDE")
"""With these float32 would be TF32, or would not be, whatever the row says."""
API_KEY = re.compile(r"(^|_)API_KEY(_FILE)?$", re.IGNORECASE)
NO_PROXY = ("NO_PROXY", "no_proxy")
PROXY = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")

RENDEZVOUS = "HARNESS_RENDEZVOUS"
"""HOST:PORT where the machines of a training meet."""
STOP_SECONDS = "HARNESS_STOP_SECONDS"

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
"""How many threads PyTorch, numpy and the novelty filter take where nothing else says it."""


def threads(count: int | None) -> dict[str, str]:
    """The variables with which a stage's libraries take `count` threads, or fewer where the caller has
    them so already; None: what they find."""
    if count is None:
        return {}
    callers = {name: os.environ.get(name, "") for name in THREADS}
    fewer = {n: text for n, text in callers.items() if text.isdigit() and 0 < int(text) < count}
    return {**dict.fromkeys(THREADS, str(count)), **fewer}


def given(stage: str) -> dict[str, str]:
    """What a stage's process is given, whatever the caller's variables say; but that PyTorch divides a
    GPU's memory as the caller has it, a fault is looked for as the caller asks, and a stage has as long
    to stop as it is waited for."""
    passed = {name: os.environ[name] for name in (*DIAGNOSIS, STOP_SECONDS) if name in os.environ}
    if stage in HUB_STAGES:
        return {**passed, **QUIET}
    callers = {name: os.environ[name] for name in ALLOCATOR if os.environ.get(name)}
    return {**passed, **QUIET, **OFFLINE, **(callers or EXPANDABLE)}


def caches(stage: str, folder: Path) -> dict[str, str]:
    """Where a stage's libraries keep what they download, compile or remember, instead of in the home
    folder. Where the caller's variables name a place, that stays."""
    hugging_face = str(folder / "huggingface")
    if stage in HUB_STAGES:
        # Beside its downloads the client keeps the user's token there, which it is to find.
        home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
        hugging_face = os.path.join(home, "huggingface")
    places = {
        "HF_HOME": hugging_face,
        "HF_HUB_CACHE": str(folder / "huggingface" / "hub"),
        "HF_XET_CACHE": str(folder / "huggingface" / "xet"),
        "HF_ASSETS_CACHE": str(folder / "huggingface" / "assets"),
        # torch's compiled extensions among others, each build's apart.
        "XDG_CACHE_HOME": str(folder / "cache"),
        "XDG_CONFIG_HOME": str(folder / "config"),
        "XDG_DATA_HOME": str(folder / "data"),
        "MPLCONFIGDIR": str(folder / "matplotlib"),
        "NLTK_DATA": str(folder / "nltk"),
        "TORCH_HOME": str(folder / "torch"),
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
        "TRITON_HOME": str(folder / "triton"),
        "TRITON_CACHE_DIR": str(folder / "triton" / "cache"),
        "CUDA_CACHE_PATH": str(folder / "cuda"),
    }
    return {name: place for name, place in places.items() if not os.environ.get(name)}


def stop_seconds() -> float:
    """How long a stage may take to stop in order before it is killed; inf: as long as its job lasts.

    Raises:
        InputError: the variable that says it is no such number.
    """
    text = os.environ.get(STOP_SECONDS) or "30"
    with contextlib.suppress(ValueError):
        if (seconds := float(text)) >= 0:
            return seconds
    raise InputError(f"{STOP_SECONDS} is {text!r}; it can be a number of seconds from 0, or inf")


def of_key(name: str) -> tuple[str, ...]:
    """The variables in which the key `name` is looked for, or the path of its file, in this order."""
    names = (name, OLD_TOKEN) if name == TOKEN else (name,)
    return tuple(variable for each in names for variable in (each, f"{each}_FILE"))


def withheld(
    stage: str, network: bool, used_keys: Iterable[str] = (), named_keys: Iterable[str] = ()
) -> set[str]:
    """Those of the caller's variables that are none of a stage's business: where the hub is and the
    token for it, the way to a network, keys, and what would undo the row's arithmetic.

    `used_keys`: those of the stage; `named_keys`: those that rows name, whatever they are called.
    """
    hub: Iterable[str] = () if stage in HUB_STAGES else (*HUB, *HUB_CLIENT)
    keys = {name for name in os.environ if API_KEY.search(name)}
    keys |= {variable for name in named_keys for variable in of_key(name)}
    ways = {name for name in os.environ if name.lower().endswith("_proxy")}
    used = {variable for name in used_keys for variable in of_key(name)}
    return ({*hub, *keys} - used) | {*TF32} | (set() if network else ways)


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
