"""GPUs in containers: how an engine is asked for them, and what it says where it cannot do so."""

import re
from collections.abc import Sequence
from typing import Any

from docker.types import DeviceRequest

from harness import gpus
from harness.errors import HarnessError
from harness.gpus import Gpu

TOOLKIT = "NVIDIA Container Toolkit"
INSTALL = (
    "install the package nvidia-container-toolkit, then `sudo nvidia-ctk runtime configure "
    "--runtime=docker` and `sudo systemctl restart docker`"
)
_LACKING = re.compile(
    r"could not select device driver|GPU vendor from CDI|known GPU vendor|CDI device|nvidia\.com/gpu"
    r"|nvidia-container|nvidia-ctk|nvidia-cdi|libnvidia|runtime name:? \"?nvidia|nvml"
)
"""In what Docker (without and with CDI) and the toolkit say where a GPU cannot be passed on."""


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


def fault(title: str, reason: str) -> HarnessError | None:
    """What to do where an engine said that it cannot pass GPUs on; None where it said anything else."""
    if not _LACKING.search(reason):
        return None
    return HarnessError(
        f"{title}: Docker cannot pass a GPU into a container: {reason}",
        f"That takes the {TOOLKIT}: {INSTALL}. `harness doctor` shows whether it is there. "
        f"{gpus.CPU_INSTEAD}, in the images for it.",
    )


def has_toolkit(info: dict[str, Any]) -> bool:
    """Whether an engine (`docker info`) knows NVIDIA's runtime or devices."""
    devices = info.get("DiscoveredDevices") or []
    return "nvidia" in (info.get("Runtimes") or {}) or any(
        str(device.get("ID", "")).startswith("nvidia.com/gpu") for device in devices
    )
