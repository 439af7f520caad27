"""What has to be there for a stage: each kind of recipe, engine and judge says it of itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from harness.spec.base import Data, Endpoint, Spec
from harness.spec.hub import HubData
from harness.spec.model_source import ModelSource


@dataclass(frozen=True)
class Needs:
    """What has to be there beside a stage's spec and its inputs."""

    endpoints: Sequence[Endpoint] = ()
    """The called models, each once; none where recorded calls stand for them."""
    is_recorded: bool = False
    """Whether recorded calls of another run stand for the model."""
    hub: Mapping[str, HubData] = field(default_factory=dict)
    """Input's name -> the hub data set that is read under it, beside the prompts."""
    model: ModelSource | None = None
    """The judge's own model."""
    server: Spec | None = None
    """The engine whose server stands beside the stage."""
    gpus: int = 0
    """On how many the stage's own process works, where GPUs are used."""

    @classmethod
    def asking(cls, endpoints: Sequence[Endpoint], transcript: Data | None) -> "Needs":
        """To ask these, where no recorded calls stand for them."""
        return cls(endpoints) if transcript is None else cls(is_recorded=True)
