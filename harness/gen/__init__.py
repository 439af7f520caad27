"""The gen stage: makes an instruction data set with a teacher model."""

from harness.call import StageCall, StageResult
from harness.spec.models import AlpacaGen


def run(call: StageCall) -> StageResult:
    """Make the data set that `call.params["gen"]` asks for."""
    from harness.gen import alpaca

    return alpaca.run(call, AlpacaGen.model_validate(call.params["gen"]))
