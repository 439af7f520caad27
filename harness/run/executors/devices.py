"""GPUs in containers: how an engine is asked for them, and what it says where it cannot do so."""

import re
from collections.abc import Sequence
from typing import Any

from docker.types import DeviceRequest

from harness.artefact import environment, gpus
from harness.artefact.gpus import Gpu
from harness.errors import HarnessError

TOOLKIT = "NVIDIA Container Toolkit"
INSTALL = (
    "install the package nvidia-container-toolkit, then `sudo nvidia-ctk runtime configure "
    "--runtime=docker` and `sudo systemctl restart docker`"
)
_PROGRAM = r"nvidia-(container-(cli|runtime(-hook)?|toolkit)|ctk|cdi-hook)"
_LACKING = re.compile(
    r'could not select device driver "[^"]*" with capabilities: \[+[^\]]*\bgpu\b'
    r"|failed to discover GPU vendor from CDI|no known GPU vendor found"
    r'|[Uu]nknown (or invalid )?runtime (name|specified):? "?nvidia'
    r"|fork/exec [^\s:]*"
    + _PROGRAM
    + r": no such file"
    + r'|exec: \\?"[^"]*'
    + _PROGRAM
    + r'\\?": (stat [^:]+: )?(executable file not found|no such file)'
)
"""What Docker says, without and with CDI, where nothing that passes GPUs on is known to it."""
_UNLISTED = re.compile(r"unresolvable CDI devices [^\n]*nvidia\.com/gpu")
_BY_MODE = "invoking the NVIDIA Container Runtime Hook directly"
_OF_MODE = (
    "Its settings name a mode that Docker's --gpus cannot use: `sudo nvidia-ctk config --in-place "
    "--set nvidia-container-runtime.mode=auto`."
)
_OF_DRIVER = (
    "`nvidia-smi` must work on this machine (after an update of the driver, boot it anew); `sudo "
    "nvidia-container-cli --debug=/dev/stderr info` says more."
)
_FAILING = re.compile(
    rf"(?<![\w/.-]){_PROGRAM}: |Auto-detected mode as '|Using requested mode '"
    rf"|{_BY_MODE}"
)
"""How a program of the toolkit begins what it says. Its name in a path is none of its words."""


def asked_for(chosen: Sequence[Gpu]) -> dict[str, Any]:
    """A container's settings that pass these GPUs in, and no other.

    WSL2 has one device for all of them: CUDA is then told which, by their numbers, which vLLM needs.
    """
    if not chosen:
        return {}
    request: dict[str, Any] = {"capabilities": [["gpu"]]}
    if not (gpus.DEV / "dxg").exists():
        ids = [gpu.id for gpu in chosen]
        return {"device_requests": [DeviceRequest(device_ids=ids, **request)]}
    numbers = ",".join(str(gpu.index) for gpu in chosen)
    return {
        "device_requests": [DeviceRequest(count=-1, **request)],
        "environment": {gpus.VISIBLE: numbers, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"},
    }


def fault(title: str, reason: str, executor: str = "docker") -> HarnessError | None:
    """What to do where an engine said that it cannot pass GPUs on: the toolkit is not there, knows no
    such GPU, or fails. None where it said anything else, though it be of a file of the driver's."""
    instead = f"{environment.cpu_instead(executor)}."
    engine = "Docker" if executor == "docker" else executor
    cannot = f"{title}: {engine} cannot pass a GPU into a container: {reason}"
    if _LACKING.search(reason):
        return HarnessError(
            cannot,
            f"That takes the {TOOLKIT}: {INSTALL}. `harness doctor` shows whether it is there. "
            f"{instead}",
        )
    if _UNLISTED.search(reason):
        return HarnessError(
            cannot,
            f"The {TOOLKIT}'s list of GPUs for CDI lacks it: `sudo nvidia-ctk cdi generate "
            f"--output=/etc/cdi/nvidia.yaml` writes it anew. {instead}",
        )
    if words := _FAILING.search(reason):
        return HarnessError(
            f"{title}: the {TOOLKIT} is there and cannot pass a GPU into a container: "
            f"{reason[words.start() :]}",
            f"{_OF_MODE if _BY_MODE in reason else _OF_DRIVER} {instead}",
        )
    return None


def has_toolkit(info: dict[str, Any]) -> bool:
    """Whether an engine (`docker info`) knows NVIDIA's runtime or devices."""
    devices = info.get("DiscoveredDevices") or []
    return "nvidia" in (info.get("Runtimes") or {}) or any(
        str(device.get("ID", "")).startswith("nvidia.com/gpu") for device in devices
    )
