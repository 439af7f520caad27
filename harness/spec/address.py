"""Addresses of given data: which are allowed, how they are named, and what a file of theirs is called.

An address is printed, kept in manifests and sent to servers: it may hold no password and no key.
"""

import os
import re
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from harness.errors import holds_key

FILE = "file"
SECRET_QUERY = re.compile(
    r"key(?!words?$)|token(?!i[sz])|secret|passw|^pwd$|signature|^sig$|credential|^auth(?!ors?$)",
    re.IGNORECASE,
)
"""Names in a query with which signed addresses let their holder in; `author` and `keyword` do not."""
NOT_IN_NAMES = re.compile(r"[^\w.-]")


def check_address(value: str, plain_http: bool = False) -> str:
    """The address as it is used; one of a file beside the spec (`file:../x`) with its whole path.

    `plain_http`: whether http: is allowed to other machines too, as it is to an operator's mirror.

    Raises:
        ValueError: it is none, or none that is fetched from, or holds what lets somebody in.
    """
    if not value.isprintable() or (" " in value and not value.startswith(f"{FILE}:")):
        raise ValueError("an address holds no blanks")
    try:
        parts = urlsplit(value)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError("not an address") from None
    if "@" in parts.netloc:
        raise ValueError(
            "a user name or password does not belong in an address, which is printed and kept"
        )
    names = [pair.partition("=")[0] for pair in parts.query.split("&")]
    if any(map(SECRET_QUERY.search, names)) or holds_key(parts.query):
        raise ValueError(
            "a key or signature does not belong in an address, which is printed and kept"
        )
    if parts.fragment:
        raise ValueError("an address ends before its #; a file within an archive is its `member`")
    if parts.scheme != FILE and (not value.isascii() or ".." in unquote(parts.path).split("/")):
        raise ValueError("an address holds no .. and, but as %xx, no letters beyond ASCII")
    if parts.scheme == FILE:
        return _of_file(value, parts.path, host)
    is_safe = parts.scheme == "https" or (
        parts.scheme == "http" and (plain_http or is_loopback(host))
    )
    if not is_safe or not host:
        raise ValueError(
            "an address begins with https://, or with file: (http: on this machine alone)"
        )
    return str(value)


def _of_file(value: str, path: str, host: str) -> str:
    if host not in ("", "localhost") or not path:
        raise ValueError("a file's address looks like file:///folder/name or file:../name")
    folder: Path | None = getattr(value, "folder", None)
    whole = unquote(path)
    if not whole.startswith("/"):
        whole = os.path.abspath((folder or Path()) / whole)
    return file_address(Path(whole))


def file_address(path: Path) -> str:
    return f"{FILE}://{quote(str(path))}"


def path_of(address: str) -> Path | None:
    """Of a file's address the path."""
    parts = urlsplit(address)
    return Path(unquote(parts.path)) if parts.scheme == FILE else None


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def shown(address: str) -> str:
    """The address for people: without its query."""
    return urlsplit(address)._replace(query="", fragment="").geturl()


def file_name(address: str) -> str:
    """What the file is called, as a name that is safe on a disk."""
    return safe_name(unquote(urlsplit(address).path).rstrip("/").rpartition("/")[2])


def safe_name(name: str) -> str:
    return NOT_IN_NAMES.sub("_", name)[-100:].lstrip(".") or "file"


def as_list(value: Any) -> Any:
    """One address or several.

    Raises:
        ValueError: a list of none.
    """
    if isinstance(value, list) and not value:
        raise ValueError("a list of no addresses: name one, or leave url out")
    return [value] if isinstance(value, str) else value


def check_member(value: str) -> str:
    """The name of a file or folder within an archive or a folder; `.` for all of it."""
    parts = [part for part in value.split("/") if part not in ("", ".")]
    if value.startswith("/") or ".." in parts or "\\" in value or "\0" in value:
        raise ValueError("a member is a path within the archive, such as data/train.json")
    return "/".join(parts) or "."
