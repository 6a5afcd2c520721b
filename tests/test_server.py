"""The server of `examples/serving`: its sessions, its limits and what it refuses."""

import asyncio
import subprocess
import sys

import jax
import numpy as np
import pytest

import jaxseq
from tests import reference

httpx = pytest.importorskip("httpx")
pytest.importorskip("starlette")

from examples.serving import model, server  # noqa: E402

SLOTS = 4
PARAMS = model.init(jax.random.key(0))


@pytest.fixture(scope="module")
def network():
    return model.Model(PARAMS, SLOTS)


def serve(test, read):
    """Runs a test with a client of a server of its own."""

    async def run():
        app = server.Server(read, SLOTS).app
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        client = httpx.AsyncClient(transport=transport, base_url="http://server")
        async with client:
            await asyncio.wait_for(test(client), 60)

    asyncio.run(run())


async def begin(client):
    response = await client.post("/sessions")
    assert response.status_code == 201
    return "/sessions/" + response.json()["name"]


async def post(client, session, text):
    response = await client.post(session, content=text)
    assert response.status_code == 200, response.text
    return response.json()


def expected(text):
    """The five most probable characters after a text, from the equations in NumPy."""
    weights = jax.tree.map(np.float64, PARAMS)
    x = weights["embed"][[model.CHARS.index(c) for c in text]]
    lstm = [getattr(weights["lstm"], name) for name in ("w_x", "w_h", "b")]
    (h, _), _ = reference.lstm(lstm, np.zeros((2, model.H)), x)
    p = np.exp(h @ weights["head"])
    return sorted(zip(p / p.sum(), model.CHARS, strict=True), reverse=True)[:5]


def check(got, text):
    p, chars = zip(*expected(text), strict=True)
    assert [c for c, _ in got] == list(chars)
    np.testing.assert_allclose([a for _, a in got], p, rtol=1e-4)


def test_sessions_that_take_turns(network):
    """Each reads as if it were alone, whatever the others read in between."""

    async def test(client):
        one, other = await begin(client), await begin(client)
        check(await post(client, one, "the "), "the ")
        check(await post(client, other, "A cat, "), "A cat, ")
        check(await post(client, one, "dog"), "the dog")
        check(await post(client, other, "and\nno"), "A cat, and\nno")

    serve(test, network)


def test_sessions_at_the_same_time(network):
    texts = ["the dog", "A cat, and\nno more", "x", "~" * 30]

    async def test(client):
        sessions = [await begin(client) for _ in texts]
        pairs = zip(sessions, texts, strict=True)
        found = await asyncio.gather(*(post(client, s, text) for s, text in pairs))
        for got, text in zip(found, texts, strict=True):
            check(got, text)

    serve(test, network)


class Counted:
    """Steps without a network, that tell how many rows they read."""

    def __init__(self):
        self.sizes = []

    def __call__(self, rows, tokens, fresh):
        self.sizes.append(len(rows))
        return np.ones((len(rows), len(model.CHARS)))

    async def started(self):
        while not self.sizes:
            await asyncio.sleep(0)


def test_sessions_share_steps():
    counted, texts = Counted(), ["a" * 100, "a" * 60, "a" * 80]

    async def test(client):
        sessions = [await begin(client) for _ in texts]
        pairs = zip(sessions, texts, strict=True)
        await asyncio.gather(*(post(client, s, text) for s, text in pairs))

    serve(test, counted)
    assert sum(counted.sizes) == 240 and counted.sizes.count(3) > 30
    assert set(counted.sizes) <= {1, 2, 3}


def test_a_full_house(network):
    async def test(client):
        sessions = [await begin(client) for _ in range(SLOTS)]
        for session in sessions:
            await post(client, session, "before")
        refused = await client.post("/sessions")
        assert refused.status_code == 503 and int(refused.headers["Retry-After"]) > 0
        assert refused.text == "all sessions are taken"
        check(await post(client, sessions[0], "!"), "before!")  # the others go on
        assert (await client.delete(sessions[2])).status_code == 204
        new = await begin(client)  # in the row of the one that ended, without its state
        check(await post(client, new, "after"), "after")
        assert (await client.post("/sessions")).status_code == 503

    serve(test, network)


def test_unused_sessions_make_room(network, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(server, "monotonic", lambda: now[0])

    async def test(client):
        first, *others = [await begin(client) for _ in range(SLOTS)]
        now[0] = 10.0
        await post(client, first, "a")
        now[0] = server.IDLE + 1
        new = await begin(client)
        check(await post(client, new, "new"), "new")
        check(await post(client, first, "b"), "ab")  # it was used
        for session in others:
            assert (await client.delete(session)).status_code == 404

    serve(test, network)


async def pieces():
    for _ in range(11):
        yield b"a" * 100


EXPECTED = f"expected characters among {model.CHARS!r}"
BAD = {
    "too long": ("a" * 1001, 413, "Content Too Large"),
    "of unknown length": (pieces(), 413, "Content Too Large"),
    "unknown": ("aéb", 400, EXPECTED),
    "not UTF-8": (b"a\xff", 400, EXPECTED),
    "empty": ("", 400, EXPECTED),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_refused(network, kind):
    """The answer says why, and the session goes on as if nothing had come."""
    content, status, message = BAD[kind]

    async def test(client):
        session = await begin(client)
        await post(client, session, "be")
        refused = await client.post(session, content=content)
        assert (refused.status_code, refused.text) == (status, message)
        check(await post(client, session, "fore"), "before")

    serve(test, network)


def test_the_largest_text(network):
    async def test(client):
        text = "ab" * 500
        check(await post(client, await begin(client), text), text)

    serve(test, network)


def test_a_session_that_has_ended(network):
    async def test(client):
        session = await begin(client)
        assert (await client.delete(session)).status_code == 204
        for name in (session, "/sessions/none"):
            for refused in (
                await client.post(name, content="a"),
                await client.delete(name),
            ):
                assert refused.status_code == 404
                assert refused.text == "there is no such session, or it has ended"
        assert (await client.get("/sessions")).status_code == 405

    serve(test, network)


def test_a_session_that_is_reading():
    counted = Counted()

    async def test(client):
        session = await begin(client)
        first = asyncio.create_task(post(client, session, "a" * 1000))
        await counted.started()
        for refused in (
            await client.post(session, content="c"),
            await client.delete(session),
        ):
            assert refused.status_code == 409
            assert refused.text == "the session is still reading"
        assert not first.done()
        await first
        await post(client, session, "c")

    serve(test, counted)
    assert counted.sizes == [1] * 1001


def test_a_client_that_goes_away():
    """Its text is read to the end, and the others do not see it."""
    counted = Counted()

    async def test(client):
        one, other = await begin(client), await begin(client)
        gone = asyncio.create_task(post(client, one, "a" * 100))
        await counted.started()
        gone.cancel()
        await post(client, other, "a" * 200)
        await post(client, one, "a")

    serve(test, counted)
    assert sum(counted.sizes) == 301 and counted.sizes.count(2) > 90


def test_a_client_that_goes_away_before_its_text_is_there():
    """It is no fault of the server, and the session is as before."""
    counted, sent = Counted(), []
    house = server.Server(counted, SLOTS)

    async def receive():
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    async def run():
        transport = httpx.ASGITransport(house.app)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://server"
        ) as client:
            path = await begin(client)
            scope = {"type": "http", "method": "POST", "path": path, "headers": []}
            await house.app({**scope, "query_string": b""}, receive, send)
            await post(client, path, "a")

    asyncio.run(run())
    assert sent[0]["status"] == 400 and counted.sizes == [1]


def test_a_step_that_fails(network):
    """Those that read in it are told so; they and the others go on."""
    fails = [False, True]

    def read(*args):
        if fails.pop(0) if fails else False:
            raise RuntimeError("the step has failed")
        return network(*args)

    async def test(client):
        one, two, three = [await begin(client) for _ in range(3)]
        check(await post(client, one, "a"), "a")
        both = [client.post(session, content="bc") for session in (one, two)]
        for refused in await asyncio.gather(*both):
            assert refused.status_code == 500
        for session, before in ((one, "a"), (two, ""), (three, "")):
            check(await post(client, session, "d"), before + "d")

    serve(test, read)


def test_weights_of_a_file(tmp_path):
    path = str(tmp_path / "weights.safetensors")
    params = model.init(jax.random.key(1))
    jaxseq.save(path, params)
    loaded = model.load(path)
    assert jax.tree.structure(loaded) == jax.tree.structure(params)
    same = jax.tree.map(np.array_equal, loaded, params)
    assert all(jax.tree.leaves(same))
    jaxseq.save(path, {"head": params["head"]})
    with pytest.raises(ValueError, match="embed: expected an array of this name"):
        model.load(path)


def test_a_file_that_is_not_there():
    command = sys.executable, "-m", "examples.serving", "/no/such/file"
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 2 and "No such file" in run.stderr.splitlines()[-1]
    assert "Traceback" not in run.stderr
