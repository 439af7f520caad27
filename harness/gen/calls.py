"""The client that a recipe asks its teacher or judge with."""

import shutil
from pathlib import Path

from harness.call import StageCall
from harness.gen.dataset import TRANSCRIPT
from harness.llm.client import Client
from harness.spec.base import Data, Endpoint


def open_client(call: StageCall, endpoint: Endpoint, given: Data | None) -> Client:
    """The client for a recipe's calls, an async context manager.

    `given`: recorded calls that the spec names in place of the model. A request that they lack then
    fails, and nothing is asked. So it is where the whole stage is replayed.
    """
    path = call.folder / TRANSCRIPT
    if given is not None and not path.exists():
        part = path.with_name(path.name + ".part")
        shutil.copyfile(Path(given.path), part)
        part.replace(path)
    replay = call.replay or given is not None
    return Client(endpoint, path, call.budget, price=call.price, replay=replay)
