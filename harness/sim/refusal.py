"""How the simulated server says no: the way OpenAI's API does."""

from aiohttp import web


class Refused(Exception):
    """A request that the server does not serve."""

    def __init__(self, status: int, message: str, kind: str = "invalid_request_error") -> None:
        super().__init__(message)
        self.status, self.kind = status, kind

    def response(self) -> web.Response:
        return error(self.status, str(self), self.kind)


def error(status: int, message: str, kind: str, **headers: str) -> web.Response:
    body = {"error": {"message": message, "type": kind, "param": None, "code": None}}
    return web.json_response({**body, "simulated": True}, status=status, headers=headers)
