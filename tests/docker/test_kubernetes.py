"""docs/kubernetes.yaml: the fields that Kubernetes takes, and what it expects of the images."""

import os
import subprocess
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from harness.artefact import caches, locks
from harness.artefact.environment import image_tag
from harness.common import env_variables
from tests.helpers import ROOT

MANIFEST = ROOT / "docs" / "kubernetes.yaml"

Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
Quantity = Annotated[str, Field(pattern=r"^[0-9]+(m|[KMGT]i?)?$", strict=True)]


class Fields(BaseModel):
    """Of the API's objects those fields that the manifest uses (Kubernetes 1.33, API reference)."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Metadata(Fields):
    name: Name


class Resources(Fields):
    requests: dict[str, Quantity] = {}
    limits: dict[str, Quantity] = {}


class ClaimSpec(Fields):
    accessModes: list[Literal["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"]]
    resources: Resources


class Claim(Fields):
    apiVersion: Literal["v1"]
    kind: Literal["PersistentVolumeClaim"]
    metadata: Metadata
    spec: ClaimSpec


class ConfigMap(Fields):
    apiVersion: Literal["v1"]
    kind: Literal["ConfigMap"]
    metadata: Metadata
    data: dict[Annotated[str, Field(pattern=r"^[-._a-zA-Z0-9]+$")], str]


class SecretKey(Fields):
    name: Name
    key: str
    optional: bool


class ValueFrom(Fields):
    secretKeyRef: SecretKey


class Variable(Fields):
    name: str
    value: str | None = None
    valueFrom: ValueFrom | None = None


class Profile(Fields):
    type: Literal["RuntimeDefault", "Unconfined", "Localhost"]


class PodSecurity(Fields):
    runAsNonRoot: bool
    runAsUser: int
    runAsGroup: int
    fsGroup: int
    fsGroupChangePolicy: Literal["OnRootMismatch", "Always"]
    seccompProfile: Profile


class Capabilities(Fields):
    drop: list[str]


class ContainerSecurity(Fields):
    allowPrivilegeEscalation: bool
    readOnlyRootFilesystem: bool
    capabilities: Capabilities


class VolumeMount(Fields):
    name: Name
    mountPath: str
    subPath: str | None = None
    readOnly: bool = False


class Container(Fields):
    name: Name
    image: str
    command: list[str]
    env: list[Variable]
    securityContext: ContainerSecurity
    resources: Resources
    volumeMounts: list[VolumeMount]

    def variables(self) -> dict[str, Variable]:
        return {v.name: v for v in self.env}


class ClaimName(Fields):
    claimName: Name


class EmptyDir(Fields):
    medium: Literal["", "Memory"] = ""
    sizeLimit: Quantity | None = None


class Volume(Fields):
    name: Name
    persistentVolumeClaim: ClaimName | None = None
    configMap: Metadata | None = None
    emptyDir: EmptyDir | None = None


class PodSpec(Fields):
    restartPolicy: Literal["Never", "OnFailure"]
    terminationGracePeriodSeconds: int
    automountServiceAccountToken: bool
    enableServiceLinks: bool
    securityContext: PodSecurity
    initContainers: list[Container]
    containers: list[Container]
    volumes: list[Volume]


class Template(Fields):
    spec: PodSpec


class OnCondition(Fields):
    type: str
    status: Literal["True", "False", "Unknown"]


class OnCodes(Fields):
    operator: Literal["In", "NotIn"]
    values: Annotated[list[int], Field(min_length=1, max_length=255)]


class Rule(Fields):
    action: Literal["FailJob", "FailIndex", "Ignore", "Count"]
    onPodConditions: list[OnCondition] | None = None
    onExitCodes: OnCodes | None = None


class FailurePolicy(Fields):
    rules: list[Rule]


class JobSpec(Fields):
    completionMode: Literal["Indexed", "NonIndexed"]
    completions: Annotated[int, Field(ge=1)]
    parallelism: Annotated[int, Field(ge=0)]
    backoffLimitPerIndex: Annotated[int, Field(ge=0)]
    podFailurePolicy: FailurePolicy
    template: Template


class Job(Fields):
    apiVersion: Literal["batch/v1"]
    kind: Literal["Job"]
    metadata: Metadata
    spec: JobSpec


Objects = TypeAdapter(list[Annotated[Claim | ConfigMap | Job, Field(discriminator="kind")]])


def documents() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(MANIFEST.read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def objects() -> dict[str, Any]:
    return {item.kind: item for item in Objects.validate_python(documents())}


@pytest.fixture(scope="module")
def pod(objects: dict[str, Any]) -> PodSpec:
    spec = objects["Job"].spec.template.spec
    assert isinstance(spec, PodSpec)
    return spec


@pytest.fixture(scope="module")
def containers(pod: PodSpec) -> dict[str, Container]:
    return {c.name: c for c in [*pod.initContainers, *pod.containers]}


def test_the_manifest_has_the_fields_that_the_api_takes_and_no_other(
    objects: dict[str, Any],
) -> None:
    assert set(objects) == {"PersistentVolumeClaim", "ConfigMap", "Job"}


def test_the_manifest_is_valid_by_kubernetes_own_schema_where_that_is_installed() -> None:
    validator = pytest.importorskip("kubernetes_validate")
    for document in documents():
        validator.validate(document, "1.33", strict=True)


def test_what_refers_to_another_object_names_one_that_is_there(
    objects: dict[str, Any], pod: PodSpec, containers: dict[str, Container]
) -> None:
    volumes = {v.name: v for v in pod.volumes}
    assert volumes["runs"].persistentVolumeClaim is not None
    claim = volumes["runs"].persistentVolumeClaim.claimName
    assert claim == objects["PersistentVolumeClaim"].metadata.name
    assert objects["PersistentVolumeClaim"].spec.accessModes == ["ReadWriteMany"]
    assert volumes["rows"].configMap == objects["ConfigMap"].metadata
    for container in containers.values():
        assert {m.name for m in container.volumeMounts} <= set(volumes)
        places = [m.mountPath for m in container.volumeMounts]
        assert len(set(places)) == len(places)


def test_each_index_of_the_job_is_a_row_whose_spec_is_there(objects: dict[str, Any]) -> None:
    spec, rows = objects["Job"].spec, objects["ConfigMap"].data
    assert spec.completionMode == "Indexed"
    assert list(rows) == [str(index) for index in range(spec.completions)]
    for path in rows.values():
        assert yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))["row"]


@pytest.mark.parametrize("name", ["fetch", "gen", "train", "eval"])
def test_a_containers_command_calls_the_harness_with_the_row_of_its_index(
    objects: dict[str, Any], containers: dict[str, Container], tmp_path: Path, name: str
) -> None:
    (tmp_path / "rows").mkdir()
    for index, row in objects["ConfigMap"].data.items():
        (tmp_path / "rows" / index).write_text(row)
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    python.chmod(0o755)
    for index, row in objects["ConfigMap"].data.items():
        command = [word.replace("/work", str(tmp_path)) for word in containers[name].command]
        env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "JOB_COMPLETION_INDEX": index}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
        *words, last = done.stdout.splitlines()
        assert last == row
        stages = {"gen": "gen", "train": "train", "eval": "answer,judge"}
        way = ["run", "--only", stages[name]] if name != "fetch" else ["fetch"]
        assert words == ["-m", "harness", *way]


def test_the_stages_of_a_row_run_in_their_order_each_in_its_own_image(
    pod: PodSpec, containers: dict[str, Container]
) -> None:
    assert [c.name for c in pod.initContainers] == ["fetch", "gen", "train"]
    assert [c.name for c in pod.containers] == ["eval"]
    for name, stage in {"fetch": "train", "gen": "gen", "train": "train", "eval": "judge"}.items():
        assert containers[name].image == image_tag(stage, "cuda")


def test_the_variables_are_the_harnesss_and_keys_come_from_the_secret_alone(
    containers: dict[str, Container],
) -> None:
    code = "".join(p.read_text(encoding="utf-8") for p in (ROOT / "harness").rglob("*.py"))
    assert f'"{caches.VARIABLE}"' in code
    assert f'"{locks.VARIABLE}"' in code
    for name, container in containers.items():
        for variable in container.env:
            assert (variable.value is None) != (variable.valueFrom is None)
            is_key = (
                bool(env_variables.API_KEY.search(variable.name)) or variable.name == "HF_TOKEN"
            )
            assert is_key == (variable.value is None)
            assert is_key or f'"{variable.name}"' in code
        keys = {v.name for v in container.env if v.valueFrom}
        expected = {"fetch": {"HF_TOKEN"}, "train": set()}
        assert keys == expected.get(name, {"OPENAI_API_KEY"})
        assert container.variables()["HARNESS_ACCELERATOR"].value == "cuda"


def test_every_path_is_a_mount_or_in_the_image(containers: dict[str, Container]) -> None:
    for name, container in containers.items():
        family = {"fetch": "train"}.get(name, name)
        image = (ROOT / f"Dockerfile.{family}").read_text(encoding="utf-8")
        assert image.rstrip().splitlines()[-2] == "WORKDIR /work"
        mounts = {m.mountPath: m for m in container.volumeMounts}
        variables = container.variables()
        assert variables["HARNESS_DATA"].value == "/work/runs"
        assert not mounts["/work/runs"].readOnly
        for path in ("HARNESS_INPUTS", "HARNESS_CACHE"):
            assert variables[path].value in mounts
        prices = variables["HARNESS_PRICES"].value
        assert prices == "/work/specs/prices.yaml"
        assert (ROOT / prices.removeprefix("/work/")).is_file()
        # A read-only root file system leaves these to be written; HOME is below /tmp in the images.
        assert "HOME=/tmp" in image
        assert {"/tmp", "/cache", "/dev/shm"} <= set(mounts)


def test_pods_fit_the_restricted_security_standard_and_run_as_the_images_user(
    pod: PodSpec, containers: dict[str, Container]
) -> None:
    assert pod.securityContext.runAsNonRoot
    assert pod.securityContext.seccompProfile.type == "RuntimeDefault"
    assert not pod.automountServiceAccountToken
    for family in ("gen", "train", "eval"):
        image = (ROOT / f"Dockerfile.{family}").read_text(encoding="utf-8")
        assert f"\nUSER {pod.securityContext.runAsUser}\n" in image
    for container in containers.values():
        security = container.securityContext
        assert (security.allowPrivilegeEscalation, security.readOnlyRootFilesystem) == (False, True)
        assert security.capabilities.drop == ["ALL"]


def test_a_faulty_input_is_not_tried_again_and_a_lost_node_is_no_failure(
    objects: dict[str, Any], pod: PodSpec
) -> None:
    from harness.errors import InputError
    from harness.run.executors import STOP_SECONDS

    lost, faulty = objects["Job"].spec.podFailurePolicy.rules
    assert (lost.action, lost.onPodConditions[0].type) == ("Ignore", "DisruptionTarget")
    assert (faulty.action, faulty.onExitCodes.values) == ("FailIndex", [InputError.exit_code])
    assert pod.restartPolicy == "Never", "what a pod's failure policy needs"
    assert pod.terminationGracePeriodSeconds > STOP_SECONDS
