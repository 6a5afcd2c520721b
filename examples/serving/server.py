"""A character model over HTTP, for many sessions at once; an ASGI application.

    POST   /sessions       begins a session: 201 {"name": "..."}
    POST   /sessions/NAME  reads on, a text in the body: [["e", 0.12], ...] is next
    DELETE /sessions/NAME  ends it: 204

Each session has a row of the model's state, and each step reads a character of every
session that has some left. When a session begins, those that are long unused end.
"""

import asyncio
from dataclasses import dataclass, field
from secrets import token_urlsafe
from time import monotonic
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from examples.serving.model import CHARS

SLOTS, SIZE, IDLE = 64, 1000, 300.0  # sessions, bytes of a request, seconds


@dataclass
class Session:
    row: int
    used: float  # when
    left: list[int] = field(default_factory=list)  # tokens to read, the last one first
    found: Any = None  # the future of what comes after them
    fresh: bool = True


class Server:
    def __init__(self, read: Any, slots: int = SLOTS):
        self.read, self.free = read, list(range(slots))
        self.sessions: dict[str, Session] = {}
        self.reading: list[Session] = []
        routes = [
            Route("/sessions", self.begin, methods=["POST"]),
            Route("/sessions/{name}", self.next, methods=["POST"]),
            Route("/sessions/{name}", self.end, methods=["DELETE"]),
        ]
        gone: Any = {ClientDisconnect: lambda *_: Response(status_code=400)}
        self.app = Starlette(routes=routes, exception_handlers=gone, max_body_size=SIZE)

    async def begin(self, request: Request) -> Response:
        for name, s in [*self.sessions.items()]:
            if not s.left and s.used < monotonic() - IDLE:
                self.free.append(self.sessions.pop(name).row)
        if not self.free:
            raise HTTPException(503, "all sessions are taken", {"Retry-After": "10"})
        self.sessions[name := token_urlsafe()] = Session(self.free.pop(), monotonic())
        return JSONResponse({"name": name}, 201)

    async def next(self, request: Request) -> Response:
        text = (await request.body()).decode(errors="replace")
        if not text or set(text) - set(CHARS):
            raise HTTPException(400, f"expected characters among {CHARS!r}")
        session = self.session_of(request)
        session.left = [CHARS.index(c) for c in reversed(text)]
        session.used, session.found = monotonic(), asyncio.Future()
        if not self.reading:
            asyncio.get_running_loop().call_soon(self.step)
        self.reading.append(session)
        p = await asyncio.shield(session.found)  # which goes on without the client
        return JSONResponse([[CHARS[i], float(p[i])] for i in np.argsort(-p)[:5]])

    async def end(self, request: Request) -> Response:
        self.free.append(self.session_of(request).row)
        del self.sessions[request.path_params["name"]]
        return Response(status_code=204)

    def session_of(self, request: Request) -> Session:
        if not (session := self.sessions.get(request.path_params["name"])):
            raise HTTPException(404, "there is no such session, or it has ended")
        if session.left:
            raise HTTPException(409, "the session is still reading")
        return session

    def step(self) -> None:
        args = zip(*((s.row, s.left.pop(), s.fresh) for s in self.reading), strict=True)
        try:  # not in a thread, which would wait for the interpreter's lock
            found = self.read(*map(np.array, args))
        except Exception as error:
            for s in self.reading:
                s.left.clear()
                s.found.set_exception(error)
        else:
            for s, p in zip(self.reading, found, strict=True):
                s.fresh = False
                if not s.left:
                    s.found.set_result(p)
        self.reading = [s for s in self.reading if s.left]
        if self.reading:  # next, but after the requests that have come
            asyncio.get_running_loop().call_soon(self.step)
