# SPDX-License-Identifier: MIT
import os
import time


def until_gone(noticed):
    try:
        for _ in range(2000):
            yield bytes(16384)
            time.sleep(0.01)
    except (OSError, GeneratorExit):
        open(noticed, "w").close()


def application(env, start):
    what, _, rest = env.get("QUERY_STRING", "").partition("=")
    kind = [("Content-Type", "application/octet-stream")]
    if env["REQUEST_METHOD"] == "POST":
        body = env["wsgi.input"].read()
        start("200 OK", kind)
        return [body]
    if what == "big":
        start("200 OK", kind)
        return [b"0123456789abcdef" * 65536]
    if what == "gone":
        start("200 OK", kind)
        return until_gone(rest)
    for _ in range(4000):
        if what != "hold" or os.path.exists(rest):
            break
        time.sleep(0.005)
    if what == "err":
        env["wsgi.errors"].write(rest + "\n")
        env["wsgi.errors"].flush()
    start("203 Other", kind + [("X-Matrix", "from the program")])
    return [f"{name}={env.get(name, '')}\n".encode() for name in ("REQUEST_METHOD", "QUERY_STRING", "HTTP_X_MATRIX", "MATRIX_USER")]
