# SPDX-License-Identifier: MIT
"""The columns of the matrix. Each check takes a running row (chain.Chain) and raises AssertionError if it does not hold."""
import contextlib
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor

from chain import request
from recorder import GET_VALUES, RESULT
from test_front import Fcgi
from weirlib import wait_for

BODY = os.urandom(10 << 20)
MEGABYTE = b"0123456789abcdef" * 65536
AT_ONCE = 4


def answered(r, query, word=""):
    assert r.status == 203 and r.getheader("X-Matrix") == "from the program", (r.status, r.getheaders(), r.text[:300])
    lines = r.text.decode().split("\n")
    assert lines[:3] == ["REQUEST_METHOD=GET", f"QUERY_STRING={query}", f"HTTP_X_MATRIX={word}"], lines


def get(chain):
    """Status, a header, and the parameters of a request arrive."""
    answered(chain.ask("a=%26&b", headers=[("X-Matrix", "a word")]), "a=%26&b", "a word")


def post10m(chain):
    """10 MB come back from the program as they were sent to it."""
    r = chain.ask("", "POST", BODY)
    assert r.status == 200 and len(r.text) == len(BODY), (r.status, len(r.text), r.text[:200])
    assert hashlib.sha256(r.text).digest() == hashlib.sha256(BODY).digest()


def answer1m(chain):
    """A megabyte."""
    assert chain.ask("big").text == MEGABYTE


def stderr(chain):
    """What the program writes to STDERR is in the server's log."""
    word = os.path.basename(chain.fresh("said"))
    answered(chain.ask("err=" + word), "err=" + word)
    wait_for(lambda: word in chain.log())


def abort(chain):
    """A client that goes away in the middle of an answer: the program notices, nothing is left of it, and the next is served."""
    noticed = chain.fresh("noticed")
    chain.leave("gone=" + noticed)
    wait_for(lambda: os.path.exists(noticed))
    gone(chain)


def gone(chain):
    wait_for(lambda: not chain.busy())
    get(chain)


def two_in_turn(chain):
    """The connections on which two requests in turn came."""
    before = {c: len(c.begun) for c in chain.tap.connections}
    for query in ("one", "two"):
        answered(chain.ask(query, tapped=True), query)
    return [c for c in chain.tap.connections for _ in c.begun[before.get(c, 0):]]


def keep(chain):
    """The second request comes on the connection of the first."""
    first, second = two_in_turn(chain)
    assert first is second, "a new connection for the second request"


def keep_never(chain):
    first, second = two_in_turn(chain)
    assert first is not second, "it keeps connections"


def closes(chain):
    """Asked to keep its connection, the program closes it."""
    c = Fcgi(chain.raw)
    with contextlib.closing(c.s):
        request(c, 1, [("REQUEST_METHOD", "GET"), ("QUERY_STRING", "")])
        assert c.end_of(1)[2] == (0, 0)
        assert c.closed()


def closes_under_others(chain):
    """The program takes a second request on a connection, and closes that when one of the two ends."""
    c, go = Fcgi(chain.raw), chain.fresh("go")
    with contextlib.closing(c.s):
        for rid, query in ((1, "hold=" + go), (2, "")):
            request(c, rid, [("REQUEST_METHOD", "GET"), ("QUERY_STRING", query)])
        assert c.end_of(2)[2] == (0, 0)
        assert c.closed()
    open(go, "w").close()


def most_at_once(chain):
    """Requests that wait for each other, so that all of them run: how many of them were on one connection."""
    before, go = chain.tap.begun(), chain.fresh("go")
    for c in chain.tap.connections:
        c.most_running = 0
    with ThreadPoolExecutor(AT_ONCE) as pool:
        asked = [pool.submit(chain.ask, "hold=" + go, tapped=True) for _ in range(AT_ONCE)]
        try:
            wait_for(lambda: chain.tap.begun() == before + AT_ONCE)
        finally:
            open(go, "w").close()
        for one in asked:
            answered(one.result(), "hold=" + go)
    return max(c.most_running for c in chain.tap.connections)


def mpx(chain):
    """Several requests at once on one connection."""
    most = most_at_once(chain)
    assert most > 1, "each had a connection of its own"


def mpx_never(chain):
    assert most_at_once(chain) == 1, "it multiplexes"


def values_asked(chain):
    """The server asks by GET_VALUES and gets its answer."""
    get(chain)
    assert any({GET_VALUES, RESULT} <= c.kinds for c in chain.tap.connections)


def values_never_asked(chain):
    get(chain)
    assert not any(GET_VALUES in c.kinds for c in chain.tap.connections)


def values_say(multiplexes):
    """The program answers GET_VALUES and says whether it multiplexes."""
    def values(chain):
        assert chain.values()["FCGI_MPXS_CONNS"] == str(int(multiplexes)), chain.values()
    return values


def ends_when_asked(chain):
    """GET_VALUES is the end of the program's process, and of the connection with it."""
    try:
        said = chain.values()
    except (EOFError, ConnectionResetError):
        return
    raise AssertionError(f"it answers {said}")


def auth(chain):
    """An authorizer lets in who says the word, with a variable for the program behind it, and nobody else."""
    status, user, _ = chain.authorize("let me in")
    assert status in (200, 203) and user == "ada", (status, user)
    status, user, text = chain.authorize("open")
    assert status in (401, 403) and not user, (status, user, text)


def filter_(chain):
    """A filter gets both streams whole."""
    stdin, data = BODY[:300000], BODY[300000:1000000]
    assert chain.filter(stdin, data) == stdin + data


def unknown_role(role):
    """The program refuses the role."""
    def check(chain):
        end = chain.call([("REQUEST_METHOD", "GET"), ("QUERY_STRING", "")], role=role, data=b"" if role == 3 else None)[2]
        assert end[1] == 3, end
    return check
