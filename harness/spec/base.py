"""What the parts of a spec are made of: text files, given data, endpoints, sampling.

Fields marked with `NOT_KEY` say how a stage runs, not what it makes: changing them re-runs nothing.
Those made by `if_set` are in a key only where they are not their default: fields that came later make
nothing stale that was made without them.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)
from pydantic.config import JsonDict

from harness.common.text_files import read_text
from harness.errors import KEY_ADVICE, holds_key, masked
from harness.spec.address import (
    as_list,
    check_address,
    check_member,
    file_name,
    safe_name,
    shown,
)

VARIABLE = "^[A-Za-z_][A-Za-z0-9_]*$"
NOT_KEY: JsonDict = {"key": False}
KEY_IF_SET: JsonDict = {"key": "if set"}


def if_set(default: Any) -> Any:
    """A field that came later: out of keys, and of dumps, which twins draw their seeds from, where it
    is its default."""
    return Field(
        default=default, json_schema_extra=KEY_IF_SET, exclude_if=lambda value: value == default
    )


Seed = Annotated[int, Field(ge=0, lt=2**32)]
Name = Annotated[str, Field(pattern="^[a-z0-9][a-z0-9._-]*$", max_length=100)]


class Spec(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        protected_namespaces=(),
        defer_build=True,
        allow_inf_nan=False,
    )

    @model_validator(mode="before")
    @classmethod
    def _keep_the_rest_of_a_default(cls, value: Any) -> Any:
        """A part that has a default and is given in part: what is not given stays as it was."""
        if not isinstance(value, dict):
            return value
        completed = dict(value)
        for name, field in cls.model_fields.items():
            default, part = field.default, value.get(name)
            if isinstance(default, Spec) and isinstance(part, dict):
                completed[name] = {n: getattr(default, n) for n in default.model_fields_set} | part
        return completed


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The models that a field of this annotation may hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for arg in get_args(annotation) for m in models_in(arg)]


class SourceText(str):
    """A string from a YAML file that knows the folder of the file it was written in."""

    folder: Path | None = None

    @classmethod
    def at(cls, value: str, folder: Path) -> "SourceText":
        text = cls(value)
        text.folder = folder
        return text


def _read_text_file(value: Any) -> Any:
    if not isinstance(value, str):
        if not isinstance(value, dict | FileText):
            raise ValueError("the name of a text file is wanted")
        return value
    folder = getattr(value, "folder", None) or Path()
    path = folder / value
    try:
        return {"path": str(value), "text": read_text(path)}
    except FileNotFoundError:
        raise ValueError(f"there is no file {path}") from None
    except (OSError, UnicodeDecodeError) as e:
        raise ValueError(f"{path} cannot be read as UTF-8 text: {e}") from None


class FileText(Spec):
    path: Annotated[str, Field(json_schema_extra=NOT_KEY)]
    text: str

    @property
    def name(self) -> str:
        """Without folders: they are relative to whichever file of several names it."""
        return Path(self.path).name


TextFile = Annotated[
    FileText,
    BeforeValidator(_read_text_file, json_schema_input_type=str),
]
"""A text file, named by its path relative to the YAML file; its text, not its name, is in the key."""


DATA_SCHEME = "data:"


def _locate(value: Any) -> Any:
    folder = getattr(value, "folder", None)
    if folder is None or value.startswith(DATA_SCHEME):
        return str(value) if isinstance(value, str) else value
    path = folder / value
    try:
        is_present = path.exists()
    except OSError:
        is_present = False
    if not is_present:
        raise ValueError(f"there is no file or folder {path}")
    return str(path)


SpecFile = Annotated[str, BeforeValidator(_locate)]
"""Another YAML file, named by its path relative to this one."""

SHA256 = "^[0-9a-f]{64}$"
REVISION = "^[0-9a-f]{40}$"
"""A full commit hash; a branch name would let content change under its key."""
HUB_ID = "^[\\w.-]+/[\\w.-]+$"


def _no_key(value: Any) -> Any:
    if isinstance(value, str) and holds_key(value):
        raise ValueError(
            f"this looks like a key, and would be printed wherever it is named. {KEY_ADVICE}"
        )
    return value


NO_KEY = BeforeValidator(_no_key)
"""What is named in tables, plans and logs, and so must not be a key by mistake."""


class Hub(Spec):
    """What a repository on the hub is called, and which commit of it is meant."""

    id: Annotated[str, Field(pattern=HUB_ID), NO_KEY]
    """OWNER/NAME."""
    revision: Annotated[str, Field(pattern=REVISION)] | None = None
    """The full commit hash; a branch name would let content change under its key. Left open, nothing
    runs: `harness pin SPEC` asks the hub and writes it. The key has what is written."""

    @property
    def commit(self) -> str:
        """The beginning of the revision."""
        return self.revision[:12] if self.revision else "an open revision"


def _check_address(value: Any) -> Any:
    """Before a plain string is made of it, which does not know its spec's folder."""
    return check_address(value) if isinstance(value, str) else value


Address = Annotated[str, BeforeValidator(_check_address, json_schema_input_type=str)]


class DataPath(Spec):
    """Where a given file or folder is. What is on disk goes before what an address brings."""

    # How it is brought is left out of dumps, which twins draw their seeds from.

    path: Annotated[str, BeforeValidator(_locate), Field(json_schema_extra=NOT_KEY)] = ""
    """A path relative to the YAML file, or `data:PATH` below the folder given with --inputs; `data:`
    alone, or no path and no address: wherever below it a file has the sha256, which is then needed."""
    sha256: Annotated[str, Field(pattern=SHA256)] | None = None
    """What the bytes must be. Needed beside a `url`, without a `path`, and of what a study published
    (`reported.outputs`, `reported.annotations`, `reported.bridge`). Of other files by `path` it may be
    left open: it is then computed, enters the key, and shows as not pinned."""
    url: Annotated[
        tuple[Address, ...], BeforeValidator(as_list, json_schema_input_type=str | list[str])
    ] = Field(default=(), exclude=True, json_schema_extra=NOT_KEY)
    """An address that has it (https:, file:), or several, of which the first that answers is taken.
    It needs the sha256."""
    member: Annotated[str, AfterValidator(check_member)] | None = Field(
        default=None, exclude=True, json_schema_extra=NOT_KEY
    )
    """Where the address is of an archive (zip, tar, tar.gz) or a folder: the file or folder in it that
    is meant, and that has the sha256; `.` is all of it."""
    bytes: Annotated[int, Field(ge=0)] | None = Field(
        default=None, exclude=True, json_schema_extra=NOT_KEY
    )
    """How large it is, for `harness needs` to say before it is fetched."""

    @model_validator(mode="after")
    def _can_be_found(self) -> "DataPath":
        if self.url and self.sha256 is None:
            raise ValueError(
                "an address needs the sha256 of the file that is meant, since what it answers with may "
                "change; sha256sum FILE prints it"
            )
        if self.by_digest and self.sha256 is None:
            raise ValueError("a path is wanted, an address (url) with its sha256, or a sha256")
        if self.member is not None and not self.url:
            raise ValueError("member is of what an address brings: a url is wanted beside it")
        return self

    @property
    def by_digest(self) -> bool:
        """Whether it is any file below the folder of given data that has the sha256."""
        return self.path == DATA_SCHEME or not (self.path or self.url)

    @property
    def name(self) -> str:
        """What people are told that it is."""
        if self.path not in ("", DATA_SCHEME):
            return self.path
        if not self.url:
            return f"the file with sha256 {self.sha256}"
        inside = f" ({self.member} in it)" if self.member else ""
        return shown(self.url[0]) + inside

    @property
    def file_name(self) -> str:
        """What it is called where an address has brought it."""
        if self.member in (None, "."):
            return file_name(self.url[0]) if self.url else safe_name(Path(self.path).name)
        return safe_name(str(self.member).rpartition("/")[2])


def _data_shorthand(value: Any) -> Any:
    if not isinstance(value, str | dict | DataPath):
        raise ValueError("a path is wanted, or a mapping of path or url, and sha256")
    return {"path": value} if isinstance(value, str) else value


def with_fields(*names: str) -> AfterValidator:
    """A check that a template's text has a place for each of these."""

    def check(file: FileText) -> FileText:
        missing = [f"{{{n}}}" for n in names if f"{{{n}}}" not in file.text]
        if missing:
            raise ValueError(f"{file.path} has no place for {', '.join(missing)}")
        return file

    return AfterValidator(check)


Data = Annotated[DataPath, BeforeValidator(_data_shorthand, json_schema_input_type=str | DataPath)]
"""A given file or folder. Its bytes, not its name, are in the key."""


class Simulated(Spec):
    """The harness's own teacher and judge in place of a real endpoint. Marked in every table."""

    seed: Seed = 0
    """Another seed gives other replies."""
    error_rate: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of judgements that are turned round, drawn from the request's digest."""
    position_bias: Annotated[float, Field(ge=-1, le=1)] = 0.0
    """Share of gradings that favour the answer shown first, below 0 the one shown second."""
    faults: dict[
        Literal["429", "500", "slow", "hang", "cut", "refuse", "format", "html"],
        Annotated[float, Field(ge=0, le=1)],
    ] = {}
    """Share of requests that misbehave in each way (on their first attempts), for tests."""


def _server_url(value: str) -> str:
    """Checked here, so that what a URL should not hold never leaves the spec."""
    if "@" in value:
        raise ValueError("a key or password does not belong in a URL: use api_key_env")
    try:
        url = urlsplit(value)
        good = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError as e:
        raise ValueError(f"not a URL: {e}") from None
    if url.query:
        raise ValueError("a key or password does not belong in a URL: use api_key_env")
    if not good:
        raise ValueError("a server's URL looks like http://host:port/v1")
    return value


def server_name(base_url: str | None) -> str | None:
    """The same for an address with and without a slash at its end."""
    return base_url.rstrip("/") if base_url else None


def _variable_name(value: Any) -> Any:
    """A name, that is, and no key: many a key could be a variable's name."""
    text = str(value)
    if value is not None and (not re.fullmatch(VARIABLE, text) or masked(text) != text):
        raise ValueError(KEY_ADVICE)
    return value


TokenLimit = Literal["max_tokens", "max_completion_tokens"]
TOKEN_LIMITS: tuple[TokenLimit, ...] = get_args(TokenLimit)
"""What servers call the most tokens that a reply may have."""


class Endpoint(Spec):
    """An OpenAI-compatible server and the model asked for."""

    model: Annotated[str, NO_KEY]
    """The model's name, as the server knows it."""
    base_url: Annotated[str, AfterValidator(_server_url)] | None = None
    """Left open: OpenAI's own, or the simulated server when `simulated` is given."""
    api_key_env: Annotated[str | None, Field(pattern=VARIABLE), BeforeValidator(_variable_name)] = (
        Field(default=None, json_schema_extra=NOT_KEY)
    )
    """Name (never the value) of the environment variable that holds the key; NAME_FILE also works."""
    simulated: Simulated | None = None
    """The harness's own teacher and judge answer in place of a server."""
    concurrency: Annotated[int, Field(ge=1, le=1024)] = Field(default=16, json_schema_extra=NOT_KEY)
    """Requests at a time."""
    timeout_s: Annotated[float, Field(gt=0)] = Field(default=60.0, json_schema_extra=NOT_KEY)
    """Seconds that a reply may take."""
    max_attempts: Annotated[int, Field(ge=1)] = Field(default=6, json_schema_extra=NOT_KEY)
    """How often a request is sent at most while the server fails."""
    token_limit: TokenLimit = Field(default="max_tokens", json_schema_extra=NOT_KEY)
    """What this server calls the most tokens of a reply: OpenAI's reasoning models know
    `max_completion_tokens` alone. Transcripts say `max_tokens` whatever is sent."""
    mode: Literal["live", "batch"] = Field(default="live", json_schema_extra=NOT_KEY)
    """`batch`: through the server's Batch API, slower and at half price."""
    batch_poll_s: Annotated[float, Field(gt=0)] = Field(default=30.0, json_schema_extra=NOT_KEY)
    """Seconds between two looks whether a batch is done."""

    @property
    def server(self) -> str | None:
        """By which servers are told apart."""
        return server_name(self.base_url)

    @model_validator(mode="after")
    def _one_server(self) -> "Endpoint":
        if self.simulated is not None and self.base_url is not None:
            raise ValueError(
                "give either base_url or simulated, not both (one that an extended file gives goes "
                "with null)"
            )
        return self


class Sampling(Spec):
    """Decoding parameters of a teacher or judge call; what is left open is not sent."""

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """0: the likeliest token."""
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    """Only the likeliest tokens that together have this probability."""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """Most tokens of a reply."""
    presence_penalty: float | None = None
    """Taken from tokens that the text has."""
    frequency_penalty: float | None = None
    """Taken from tokens for each time that the text has them."""
    stop: list[str] | None = None
    """Texts that end a reply."""
    seed: int | None = None
    """Sent to the server, which may heed it."""


Count = Annotated[int, Field(ge=1)]
