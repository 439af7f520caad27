"""The client that a stage asks its teacher, its judge or a served model with."""

import shutil
from pathlib import Path

from harness.artefact.call import TRANSCRIPT, StageCall
from harness.llm.client import Client
from harness.spec.base import Data, Endpoint


def open_client(call: StageCall, endpoint: Endpoint, recording: Data | None) -> Client:
    """The client for a stage's calls, an async context manager; its transcript is the artefact's.

    `recording`: recorded calls that the spec names in place of the model. A request that they lack then
    fails, and nothing is asked. So it is where the whole stage is replayed.

    Raises:
        InputError: the recorded file cannot be read, or is not a transcript.
    """
    path = call.folder / TRANSCRIPT
    if recording is None or call.replay:
        return Client(endpoint, path, call.budget, price=call.price, replay=call.replay)
    # It is read where the spec says that it is, which errors then name; the copy is the artefact's.
    client = Client(endpoint, Path(recording.path), call.budget, price=call.price, replay=True)
    part = path.with_name(path.name + ".part")
    shutil.copyfile(client.transcript.path, part)
    part.replace(path)
    return client
