"""What an engine says where a GPU cannot be passed on: no toolkit, one that fails, or neither."""

import pytest

from harness.run.executors import devices

HOOK = (
    "failed to create task for container: failed to create shim task: OCI runtime create failed: runc "
    "create failed: unable to start container process: error during container init: error running "
    "prestart hook #0: exit status 1, stdout: , stderr: "
)


@pytest.mark.parametrize(
    "said",
    [
        'could not select device driver "" with capabilities: [[gpu]]',
        'could not select device driver "nvidia" with capabilities: [[gpu utility]]',
        "failed to discover GPU vendor from CDI: no known GPU vendor found",
        "unknown or invalid runtime name: nvidia",
        "Unknown runtime specified nvidia.",
        'OCI runtime create failed: exec: "nvidia-container-runtime-hook": executable file not found '
        "in $PATH: unknown",
        "failed to create shim task: OCI runtime create failed: unable to retrieve OCI runtime error: "
        "fork/exec /usr/bin/nvidia-container-runtime: no such file or directory: unknown",
        'exec: "/usr/bin/nvidia-container-runtime": stat /usr/bin/nvidia-container-runtime: no such '
        "file or directory",
    ],
)
def test_an_engine_without_the_toolkit_is_told_how_to_install_it(said: str) -> None:
    fault = devices.fault("train of one", said)
    assert fault is not None
    assert fault.message == f"train of one: Docker cannot pass a GPU into a container: {said}"
    assert "install the package nvidia-container-toolkit" in fault.hint


@pytest.mark.parametrize(
    "words",
    [
        "nvidia-container-cli: initialization error: nvml error: driver not loaded: unknown",
        "nvidia-container-cli: mount error: file creation failed: /var/lib/merged/usr/lib/"
        "libnvidia-ml.so.1: file exists: unknown",
        "nvidia-container-cli: device error: GPU-0000: unknown device: unknown",
        "Auto-detected mode as 'legacy'",
        "Auto-detected mode as 'legacy'\nnvidia-container-cli: requirement error: unsatisfied",
    ],
)
def test_a_toolkit_that_fails_is_quoted_and_not_to_be_installed(words: str) -> None:
    fault = devices.fault("train of one", HOOK + words)
    assert fault is not None
    assert fault.message.endswith(
        f"Toolkit is there and cannot pass a GPU into a container: {words}"
    )
    assert "nvidia-smi" in fault.hint
    assert "install" not in fault.hint


def test_a_toolkit_in_a_mode_that_docker_cannot_use_is_told_how_to_change_it() -> None:
    words = (
        "Using requested mode 'cdi'\ninvoking the NVIDIA Container Runtime Hook directly (e.g. "
        "specifying the docker --gpus flag) is not supported."
    )
    for said in (words, words.partition("\n")[2]):
        fault = devices.fault("train of one", HOOK + said)
        assert fault is not None
        assert fault.message.endswith(f"is there and cannot pass a GPU into a container: {said}")
        assert "nvidia-container-runtime.mode=auto" in fault.hint
    fault = devices.fault("train of one", HOOK + "Using requested mode 'legacy'")
    assert fault is not None
    assert "nvidia-smi" in fault.hint


def test_a_gpu_that_cdi_does_not_list_is_told_how_to_list_it() -> None:
    said = "CDI device injection failed: unresolvable CDI devices nvidia.com/gpu=GPU-0000"
    fault = devices.fault("train of one", said)
    assert fault is not None
    assert said in fault.message
    assert "nvidia-ctk cdi generate" in fault.hint
    assert "install" not in fault.hint


@pytest.mark.parametrize(
    "said",
    [
        'error mounting "/usr/lib/libnvidia-ml.so.1" to rootfs at "/x": not a directory',
        'invalid mount config for type "bind": bind source path does not exist: /srv/nvml/runs',
        "error while creating mount source path '/opt/nvidia-container-cli': mkdir /opt: read-only",
        "invalid mount config: /opt/nvidia-container-toolkit: permission denied",
        "error mounting /etc/cdi/nvidia.com/gpu.yaml: permission denied",
        'could not select device driver "" with capabilities: [[tpu]]',
        "fork/exec /usr/bin/runc: no such file or directory",
        "unresolvable CDI devices other.org/tpu=all",
        'exec: "python": executable file not found in $PATH: unknown',
    ],
)
def test_a_fault_that_merely_names_a_drivers_file_is_none_of_the_toolkits(said: str) -> None:
    assert devices.fault("train of one", said) is None
