"""A model behind an OpenAI-compatible server."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal
from urllib.parse import urlsplit

from harness.answer.engine import Answered, AnswerTask, BaseEngine
from harness.artefact.keys import Files
from harness.artefact.needs import Needs
from harness.llm.estimate import Estimate, estimate_prompts
from harness.spec.base import Data, Endpoint
from harness.spec.twin import simulated

if TYPE_CHECKING:
    from harness.answer.answer import Answer

TOKENS_PER_ANSWER = 300
OPENAI_HOST = "api.openai.com"


class EndpointEngine(BaseEngine):
    """A model behind an OpenAI-compatible server: a closed one, or one that is served elsewhere."""

    code_version: ClassVar[int] = 2
    model_field: ClassVar[str] = "endpoint"
    kind: Literal["endpoint"] = "endpoint"
    endpoint: Endpoint
    """The server and the model asked for."""
    api: Literal["chat", "completion"] = "chat"
    """`chat`: the instruction as the user's message, and the server's own template. `completion`: the
    prompt as the row's template (or prompt file) makes it, as one text."""
    system: str = ""
    """Of a chat: the system message; none where it is empty."""
    transcript: Data | None = None
    """The recorded calls of another run. They then stand for the server, which is not called."""

    @property
    def uses_template(self) -> bool:
        return self.api == "completion"

    @property
    def takes_min_p(self) -> bool:
        if self.endpoint.simulated is not None or self.transcript is not None:
            return True
        url = self.endpoint.base_url
        return url is not None and urlsplit(url).hostname != OPENAI_HOST

    def needs(self) -> Needs:
        return Needs.asking((self.endpoint,), self.transcript)

    def estimate(self, answer: "Answer", files: Files) -> Estimate:
        if self.transcript is not None:
            return Estimate()
        most = min(TOKENS_PER_ANSWER, answer.decoding.max_new_tokens or TOKENS_PER_ANSWER)
        return estimate_prompts(answer.prompts, files, most)

    def twin(self, smoke: Path) -> BaseEngine:
        return self.model_copy(update={"endpoint": simulated(self.endpoint), "transcript": None})

    def replaced(self) -> Iterator[str]:
        if self.endpoint.simulated is None:
            yield f"simulated answers for {self.endpoint.model}"

    def answer(self, task: AnswerTask) -> Answered:
        from harness.answer.engines.endpoint.engine import answer_by_endpoint

        return answer_by_endpoint(task, self)
