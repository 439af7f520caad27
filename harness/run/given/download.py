"""One file by HTTP, as far as it takes: gone on with where it broke off, retried, never redirected to
where a spec may not send anybody. What it holds is not looked at here."""

import contextlib
import http.client
import shutil
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from harness import __version__
from harness.common.commands import harness
from harness.common.numbers import SIZES, byte_size
from harness.common.progress import Event, note_event, progress_event
from harness.errors import HarnessError
from harness.spec.address import check_address, is_loopback, shown

Tell = Callable[[Event], None]
"""Is told events, as a stage's progress is."""

BLOCK = 1 << 16
BEYOND = 1 << 20
"""Bytes over what the spec says, after which the file can only be another; a page that says why
something is refused is smaller."""
LONGEST_WAIT = 60.0
"""Seconds that a server may ask to be left alone for."""


@dataclass(frozen=True)
class Patience:
    """How patient a download is; seconds."""

    silence: float = 30
    """Without a byte."""
    attempts: int = 5
    """In a row that bring less than the slowest rate, the pause before them included."""
    pause: float = 1
    """After the first of them; twice as long after each."""
    window: float = 60
    slowest: float = 1024
    """Bytes a second over the window."""


class Failed(Exception):
    """An address does not have the file; the message completes `ADDRESS ...`."""

    def __init__(self, message: str, is_lasting: bool = True) -> None:
        super().__init__(message)
        self.is_lasting = is_lasting
        """Whether asking again would change nothing."""


class _Broken(Exception):
    """Worth another attempt. `cost`: how many it counts for. `anew`: what is there is of no use."""

    def __init__(self, message: str, cost: int = 1, wait: float = 0, anew: bool = False) -> None:
        super().__init__(message)
        self.cost, self.wait, self.anew = cost, wait, anew


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Only to where a spec could send as well; from elsewhere never to this machine itself."""

    def redirect_request(  # type: ignore[no-untyped-def]
        self, request, file, code, message, headers, address
    ) -> urllib.request.Request | None:
        bare = address.split("?")[0].split("#")[0]
        # A mirror by http: is one that the operator named.
        is_plain = urlsplit(request.full_url).scheme == "http" and not _is_local(request.full_url)
        try:
            check_address(bare, plain_http=is_plain)
            is_web = urlsplit(address).scheme in ("http", "https")
        except ValueError:
            is_web = False
        if not is_web or _is_local(address) > _is_local(request.full_url):
            where = "" if "@" in bare else f": {bare}"
            raise Failed(f"redirects to where nothing is fetched from{where}")
        return super().redirect_request(request, file, code, message, headers, address)


def download(address: str, part: Path, size: int | None, tell: Tell, pace: Patience) -> str:
    """Bring what the address answers with into the file `part`, of which some may be there from before.

    `size`: bytes that the file has, where that is known. Returns the address that answered at last.

    Raises:
        Failed: it cannot be had.
        HarnessError: there is no room for it.
    """
    left, pause, attempts = pace.attempts, pace.pause, 0
    while True:
        before, began = _size(part), time.monotonic()
        attempts += 1
        try:
            return _attempt(address, part, size, tell, pace)
        except _Broken as e:
            spent = time.monotonic() - began + pause
            if _size(part) - before >= pace.slowest * spent:
                left, pause = pace.attempts, pace.pause
            else:
                left -= e.cost
            if e.anew:
                part.unlink(missing_ok=True)
            if left <= 0:
                raise Failed(f"{e} ({attempts} attempts)", is_lasting=False) from None
            wait = max(pause, min(e.wait, LONGEST_WAIT))
            have = _size(part)
            how = f"going on at {have:,} bytes" if have else "asked again"
            tell(note_event(f"{e}; {how} in {wait:.3g} s"))
            time.sleep(wait)
            pause *= 2


def _attempt(address: str, part: Path, size: int | None, tell: Tell, pace: Patience) -> str:
    have = _size(part)
    headers = {"Accept-Encoding": "identity", "User-Agent": f"harness/{__version__}"}
    tag = tag_file(part)
    if have:
        headers["Range"] = f"bytes={have}-"
        kept_address, _, kept_tag = _text(tag).partition("\n")
        if kept_tag and kept_address == address:
            headers["If-Range"] = kept_tag
    with _broken_into_words(address, pace):
        request = urllib.request.Request(address, headers=headers)
        with _opener(address).open(request, timeout=pace.silence) as response:
            answered = str(response.geturl())
            have = _where_it_goes_on(response, have, part)
            etag = response.headers.get("ETag") or ""
            tag.write_text(f"{address}\n{'' if etag.startswith('W/') else etag}", "utf-8")
            length = response.headers.get("Content-Length") or ""
            total = have + int(length) if length.isdecimal() else None
            check_room(part, (total or 0) - have, "a download")
            try:
                _write(response, part, have, total, size, tell, pace)
            except Failed as e:
                raise Failed(f"{e}{redirected(address, answered)}") from None
            return answered
    raise AssertionError


def _opener(address: str) -> urllib.request.OpenerDirector:
    handlers: list[urllib.request.BaseHandler] = [_Redirects()]
    if _is_local(address):
        handlers.append(urllib.request.ProxyHandler({}))
    return urllib.request.build_opener(*handlers)


def _is_local(address: str) -> bool:
    return is_loopback(urlsplit(address).hostname or "")


def _where_it_goes_on(response: Any, have: int, part: Path) -> int:
    """From which byte on the answer is; what came before it is dropped where that is the first."""
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise Failed("answers with what is packed for the way, though asked not to")
    if response.status == 206:
        if (response.headers.get("Content-Range") or "").startswith(f"bytes {have}-"):
            return have
        raise _Broken("answers with another part of the file than was asked for", anew=True)
    part.unlink(missing_ok=True)
    return 0


def _write(
    response: Any,
    part: Path,
    have: int,
    total: int | None,
    size: int | None,
    tell: Tell,
    pace: Patience,
) -> None:
    began, at_first = time.monotonic(), have
    with part.open("ab") as file:
        while block := response.read1(BLOCK):
            file.write(block)
            have += len(block)
            tell(_progress(have, total or size))
            if size is not None and have > size + BEYOND:
                raise Failed(f"answers with more than the {size:,} bytes that the spec says")
            spent = time.monotonic() - began
            if spent >= pace.window:
                if have - at_first < pace.slowest * spent:
                    raise _Broken(f"sends less than {pace.slowest:,.0f} bytes a second", cost=2)
                began, at_first = time.monotonic(), have
    if total is not None and have < total:
        raise _Broken(f"broke off after {have:,} of {total:,} bytes")


def _progress(have: int, total: int | None) -> Event:
    unit = "MiB" if max(have, total or 0) >= 10 * SIZES["MiB"] else "KiB"
    of = SIZES[unit]
    # Rounded up, so that what is not whole does not look so, and a small file is more than nothing.
    done = -(-have // of)
    return progress_event("download", done, None if total is None else -(-total // of), unit)


@contextlib.contextmanager
def _broken_into_words(address: str, pace: Patience) -> Iterator[None]:
    """What can go wrong on the way, as _Broken or Failed."""
    try:
        yield
    except urllib.error.HTTPError as e:
        with e:
            where = redirected(address, e.geturl() or address)
            raise _of_status(e.code, e.headers.get("Retry-After") or "", where) from None
    except UnicodeError:
        raise Failed("redirects to what is no address") from None
    except urllib.error.URLError as e:
        raise _of_connecting(e.reason, pace) from None
    except (http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as e:
        raise _of_reading(e, pace) from None


def redirected(address: str, answered: str) -> str:
    """In brackets where an address has sent to; empty where itself answered."""
    return "" if answered == address else f" (redirected to {shown(answered)})"


def _of_status(status: int, retry_after: str, where: str) -> Exception:
    if status in (401, 403, 407):
        return Failed(
            f"refuses ({status}): it may want a login, which the harness has none for{where}"
        )
    if status in (404, 410):
        return Failed(f"has no such file ({status}){where}")
    if status == 416:
        return _Broken("has no more of the file than is here", anew=True)
    if status < 400:
        return Failed(f"redirects to where nothing is fetched from, or in a circle{where}")
    if status in (408, 425, 429) or status >= 500:
        wait = float(retry_after) if retry_after.isdecimal() else 0.0
        return _Broken(f"answers {status}{where}", wait=wait)
    return Failed(f"answers {status}{where}")


def _of_connecting(reason: Any, pace: Patience) -> Exception:
    if isinstance(reason, ssl.SSLCertVerificationError):
        return Failed(f"cannot be trusted: its certificate is refused ({reason.verify_message})")
    if isinstance(reason, socket.gaierror):
        why = "the name of its server, or of the proxy to it, is not known here (DNS)"
    elif isinstance(reason, ConnectionRefusedError):
        why = "nothing listens there (connection refused)"
    elif isinstance(reason, TimeoutError):
        why = f"no answer in {pace.silence:g} s"
    elif isinstance(reason, ssl.SSLError):
        why = f"it does not speak TLS as https: needs ({getattr(reason, 'reason', None) or reason})"
    elif isinstance(reason, ConnectionError):
        return _Broken("broke off")
    else:
        why = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
    return _Broken(f"cannot be reached: {why}", cost=2)


def _of_reading(reason: Exception, pace: Patience) -> Exception:
    if isinstance(reason, TimeoutError):
        return _Broken(f"sent nothing for {pace.silence:g} s")
    if isinstance(reason, http.client.IncompleteRead | ConnectionError | ssl.SSLError):
        return _Broken("broke off")
    return _Broken(f"answers what is no HTTP ({type(reason).__name__})", cost=2)


def check_room(path: Path, needed: int, what: str) -> None:
    """Raises HarnessError where the disk that `path` is to stand on has no room for so many bytes."""
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise HarnessError(
            f"there is no room for the {byte_size(needed)} of {what}: {path.parent} has "
            f"{byte_size(free)} free",
            f"Free some (`{harness('gc')}` lists what no spec needs), or name another volume with "
            "--volume.",
        )


def tag_file(part: Path) -> Path:
    """Where the server's mark of the version stands whose part this is."""
    return part.with_name(f"{part.name}.etag")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
