# SPDX-License-Identifier: MIT
"""libfcgi's known bugs, by their numbers in docs/libfcgi.md: each test sees the bug in Debian's library and its absence in ours."""
import contextlib
import os
import resource
import signal
import socket
import struct
import time

import pytest
from libfcgi import APPS, PROBE, SILENCE, App, answer, both, query, request, text
from recorder import ABORT, BEGIN, GET_VALUES, PARAMS, RESULT, STDIN, pair, pairs, read_record, record
from weirlib import SLOW, wait_for

pytestmark = pytest.mark.nosan  # its unit tests and the corpus of its fuzz target run in sanitizer builds

UNKNOWN = 50


def begin(rid, keep=1, role=1, padding=0):
    return record(BEGIN, rid, struct.pack("!HB5x", role, keep), padding)


def params(rid, *more):
    return record(PARAMS, rid, b"".join(pair(n.encode(), v.encode()) for n, v in more))


def values_of(c, timeout=20):
    """The answer to GET_VALUES, or None."""
    c.s.settimeout(timeout * SLOW)
    with contextlib.suppress(EOFError, OSError):
        kind, rid, content = read_record(c.s)
        assert (kind, rid) == (RESULT, 0)
        return dict(pairs(content))
    return None


# ---- B1, B9, B10, B11: what stays on a kept connection ----

@both
def test_b1_bytes_of_a_body_are_never_taken_for_records(lib):
    planted = request(9, query("env", ("SMUGGLED", "yes")))
    with App(PROBE, lib) as app:
        c = app.connect()
        head = begin(1) + params(1, *query("nothing")) + record(PARAMS, 1)
        filler = 8192 - len(head) - 8  # what one read of Debian's library takes
        c.send(head + record(STDIN, 1, b"x" * filler + planted), record(STDIN, 1))
        assert text(answer(c, 1)) == "nothing\n"
        smuggled = text(answer(c, 9, SILENCE))
        if lib == "debian":
            assert "SMUGGLED=yes" in smuggled
        else:
            assert smuggled is None
            c.send(request(2, query("env")))
            assert "SMUGGLED" not in text(answer(c, 2))


@both
@pytest.mark.parametrize("late", [record(STDIN, 1, b"late") + record(STDIN, 1), record(ABORT, 1)], ids=["body", "abort"])
def test_b9_what_comes_late_for_an_ended_request_is_ignored(late, lib):
    with App(PROBE, lib) as app:
        c = app.connect()
        c.send(request(1, query("nothing"), end=False))
        assert answer(c, 1)
        with contextlib.suppress(OSError):
            c.send(late + request(2, query("nothing")))
        assert text(answer(c, 2, 3)) == (None if lib == "debian" else "nothing\n")


@both
def test_b10_a_request_in_the_same_segment_as_the_former_one_is_served(lib):
    with App(PROBE, lib) as app:
        c = app.connect()
        c.send(request(1, query("read"), b"one") + request(2, query("read"), b"two") + request(3, query("read"), b"three"))
        assert "one" in text(answer(c, 1))
        if lib == "debian":
            assert answer(c, 2, SILENCE) is None
        else:
            assert "two" in text(answer(c, 2)) and "three" in text(answer(c, 3))


@both
def test_b11_a_body_that_nobody_read_is_drained_and_the_connection_goes_on(lib):
    with App(PROBE, lib) as app:
        c = app.connect()
        with contextlib.suppress(OSError):
            c.send(request(1, query("nothing"), b"b" * 300000))
            assert text(answer(c, 1)) == "nothing\n"
            c.send(request(2, query("read"), b"mine"))
        assert text(answer(c, 2, 3)) == (None if lib == "debian" else "read 4 error 0: mine\n")


# ---- B2, B6, B8: parameters are whole, or the program does not run ----

@both
@pytest.mark.parametrize("cut", ["pair border", "nothing"])
def test_b2_a_program_never_runs_with_a_part_of_its_parameters(cut, lib):
    with App(PROBE, lib) as app:
        c, ran = app.connect(), app.folder + "/ran"
        c.send(begin(1) + (params(1, *query("touch=" + ran)) if cut == "pair border" else b""))
        c.s.shutdown(socket.SHUT_WR)  # REMOTE_USER would have followed
        answered = answer(c, 1, 3)
        if lib == "debian":
            assert answered is not None and os.path.exists(ran) == (cut == "pair border")
        else:
            assert answered is None and not os.path.exists(ran)
            assert text(answer(ask(app, "nothing"), 1)) == "nothing\n"


def ask(app, words, body=b""):
    c = app.connect()
    c.send(request(1, query(words), body))
    return c


@both
def test_b6_padding_of_any_record_changes_nothing(lib):
    head = params(1, *query("env&read", ("A", "b"))) + record(PARAMS, 1)
    with App(PROBE, lib) as app:
        c = app.connect()
        c.send(begin(1, padding=8) + head + record(STDIN, 1, b"body") + record(STDIN, 1))
        seen = text(answer(c, 1, 3))
        if lib == "debian":
            assert not seen  # an empty environment: the words were not there
        else:
            assert "A=b" in seen and "read 4 error 0: body" in seen
    with App(PROBE, lib) as app:
        c = app.connect()
        c.send(begin(1) + params(1, *query("env&read", ("A", "b"))) + record(PARAMS, 1, b"", 8) + record(STDIN, 1, b"body", 3) + record(STDIN, 1))
        seen = text(answer(c, 1, 3))
        assert "A=b" in seen and ("read 0 error -2" if lib == "debian" else "read 4 error 0: body") in seen


@both
def test_b8_a_body_before_the_end_of_the_parameters_runs_nothing(lib):
    with App(PROBE, lib) as app:
        c, ran = app.connect(), app.folder + "/ran"
        c.send(begin(1) + params(1, *query("touch=" + ran)) + record(STDIN, 1, b"early") + params(1, ("REMOTE_USER", "me")) + record(PARAMS, 1) + record(STDIN, 1))
        answered = answer(c, 1, 3)
        assert os.path.exists(ran) == (lib == "debian") and (answered is not None) == (lib == "debian")


# ---- B3, B4, B5, B7: records beside the request's ----

@both
def test_b3_the_content_of_an_unknown_record_never_gets_into_a_body(lib):
    with App(PROBE, lib) as app:
        c = app.connect()
        c.send(begin(1) + params(1, *query("read")) + record(PARAMS, 1) + record(STDIN, 1, b"good") + record(UNKNOWN, 0, b"EVIL BYTES") +
               record(STDIN, 1, b"end") + record(STDIN, 1))
        seen = text(answer(c, 1, 3)) or ""
        assert ("EVIL" in seen) == (lib == "debian")
        assert lib == "debian" or seen == "read 7 error 0: goodend\n"


@both
def test_b4_repeated_names_in_get_values_overflow_nothing(lib):
    with App(PROBE, lib) as app:
        c = app.connect()
        c.send(record(GET_VALUES, 0, (pair(b"FCGI_MAX_CONNS", b"") + pair(b"FCGI_MPXS_CONNS", b"")) * 20), request(1, query("nothing")))
        if lib == "debian":
            assert app.ends() == -signal.SIGABRT
        else:
            assert values_of(c) == {"FCGI_MAX_CONNS": "1", "FCGI_MPXS_CONNS": "0"}
            assert text(answer(c, 1)) == "nothing\n"


@both
def test_b5_get_values_is_answered_at_once(lib):
    names = ("FCGI_MAX_CONNS", "FCGI_MAX_REQS", "FCGI_MPXS_CONNS")
    with App(PROBE, lib) as app:
        c = app.connect()
        c.send(record(GET_VALUES, 0, b"".join(pair(n.encode(), b"") for n in names)))
        got = values_of(c, SILENCE if lib == "debian" else 20)
        assert got == (None if lib == "debian" else {"FCGI_MAX_CONNS": "1", "FCGI_MAX_REQS": "1", "FCGI_MPXS_CONNS": "0"})


@both
def test_b7_an_empty_record_of_another_request_hides_nothing(lib):
    with App(PROBE, lib) as app:
        c = app.connect()
        c.send(begin(1) + params(1, *query("read")) + record(PARAMS, 1) + record(STDIN, 1, b"one ") + record(STDIN, 77) + record(STDIN, 1, b"two ") +
               record(STDIN, 1, b"three") + record(STDIN, 1))
        assert text(answer(c, 1, 3)) == ("read 9 error 0: one three\n" if lib == "debian" else "read 13 error 0: one two three\n")


# ---- B12, B13, B14 ----

@both
def test_b12_an_exit_status_belongs_to_one_request(lib):
    with App(PROBE, lib) as app:
        c = app.connect()
        c.send(request(1, query("status=5")))
        assert answer(c, 1)[2] == (5, 0)
        c.send(request(2, query("nothing")))
        assert answer(c, 2)[2] == (5 if lib == "debian" else 0, 0)


@both
@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGUSR1])
def test_b13_a_signal_that_ends_the_program_lets_the_request_have_its_body(sig, lib):
    with App(PROBE, lib) as app:
        c, here = app.connect(), app.folder + "/here"
        c.send(begin(1) + params(1, *query(f"read=1&touch={here}&read")) + record(PARAMS, 1) + record(STDIN, 1, b"12345"))
        wait_for(lambda: os.path.exists(here))
        wait_for(lambda: "S" in state_of(app.process.pid))
        app.process.send_signal(sig)
        if lib == "ours":
            wait_for(lambda: not pending(app.process.pid, sig) and "S" in state_of(app.process.pid))
        with contextlib.suppress(OSError):
            c.send(record(STDIN, 1, b"67890"), record(STDIN, 1))
        seen = text(answer(c, 1, 3))
        assert ("read 4 error 4: 2345\n" if lib == "debian" else "read 9 error 0: 234567890\n") in seen
        if lib == "ours":
            c.s.close()
            assert app.ends() == 0  # and then it ends


def state_of(pid):
    with open(f"/proc/{pid}/stat") as f:
        return f.read().rsplit(")", 1)[1].split()[0]


def pending(pid, sig):
    with open(f"/proc/{pid}/status") as f:
        masks = dict(line.split(":\t") for line in f.read().splitlines() if line.startswith(("SigPnd", "ShdPnd")))
    return any(int(m, 16) >> (sig - 1) & 1 for m in masks.values())


@both
def test_b14_an_aborted_request_is_seen_as_one_and_leaves_the_connection_to_others(lib):
    with App(PROBE, lib) as app:
        c = app.connect()
        c.send(begin(1) + params(1, *query("read")) + record(PARAMS, 1) + record(STDIN, 1, b"part") + record(ABORT, 1))
        assert text(answer(c, 1)) == "read 4 error -3: part\n"
        with contextlib.suppress(OSError):
            c.send(request(2, query("nothing")))
        assert text(answer(c, 2, 3)) == (None if lib == "debian" else "nothing\n")


# ---- B15, B16, B18: printf and lengths ----

@both
@pytest.mark.parametrize("which, printed", [(0, f"{7:120d}=120"), (1, f"{7:<300d}=300"), (2, f"{'x':>200}=200"), (3, f"{1.5:200.3e}=200")],
                         ids=["width", "negative width", "text", "exponent"])
def test_b15_wide_fields_are_printed(which, printed, lib):
    with App(PROBE, lib) as app:
        c = ask(app, f"printf={which}")
        if lib == "debian":
            assert answer(c, 1, 3) is None and app.ends() in (-signal.SIGABRT, -signal.SIGSEGV)
        else:
            assert text(answer(c, 1)) == printed + "\n"


C99 = {4: "(null)=6", 5: "5=1", 6: "-5=2", 7: "44=2", 8: "1.500000=8", 9: "0x1p+0=6", 10: "-3=2", 11: "wide=4", 12: "2.500000=8"}


@both
def test_b16_all_formats_of_c99_are_printed(lib):
    for which, printed in C99.items():
        with App(PROBE, lib) as app:
            seen = text(answer(ask(app, f"printf={which}"), 1, 3))
            assert (seen == printed + "\n") == (lib == "ours"), (which, seen)
            assert lib == "ours" or seen is None or seen.endswith("=-1\n")
    with App(PROBE, lib) as app:  # and those that both know, alike
        assert text(answer(ask(app, "printf=13"), 1)) == "-1099511627776 4464  3.14 42  | z ff %        abc|=50\n"


@both
def test_b18_a_negative_length_writes_nothing(lib):
    with App(PROBE, lib) as app:
        c = ask(app, "putstr=-1")
        if lib == "debian":
            assert answer(c, 1, 3) is None and app.ends() == -signal.SIGSEGV
        else:
            assert text(answer(c, 1)) == "putstr -1\n"


# ---- B17: memory ----

@both
@pytest.mark.nosan  # a limit of address space, which sanitizers need
def test_b17_a_length_from_the_wire_ends_no_program(lib):
    with App(PROBE, lib) as app:
        resource.prlimit(app.process.pid, resource.RLIMIT_AS, (300 << 20, 300 << 20))
        c = app.connect()
        c.send(begin(1) + record(PARAMS, 1, b"\x01\xff\xff\xff\x00N" + b"v" * 100) + record(PARAMS, 1) + record(STDIN, 1))
        assert answer(c, 1, 3) is None
        if lib == "debian":
            assert app.ends() in (-signal.SIGABRT, -signal.SIGSEGV)
        else:
            assert text(answer(ask(app, "nothing"), 1)) == "nothing\n"


def test_b17_parameters_have_a_limit_which_is_told():
    with App(PROBE) as app:
        c = app.connect()
        c.send(begin(1))
        piece = record(PARAMS, 1, b"x" * 65528)
        with contextlib.suppress(OSError):
            for _ in range(257):  # more than 16 MiB
                c.send(piece)
        assert answer(c, 1) == (b"", b"", (0, 2))  # FCGI_OVERLOADED
        c.send(request(2, query("nothing")))
        assert text(answer(c, 2)) == "nothing\n"


# ---- B19, B20, B21, B22: accepting and closing ----

@pytest.mark.nosan  # preloads a library
@both
def test_b19_a_signal_just_before_accept_is_not_lost(lib):
    preload = {"LD_PRELOAD": os.path.join(APPS, "libsignal_accept.so")}
    with App(PROBE, lib, env=preload, check=False) as app:
        assert app.ends(20 if lib == "ours" else 2 * SILENCE) == (0 if lib == "ours" else None)


@both
def test_b19_a_program_can_begin_anew_after_a_shutdown(lib):
    with App([PROBE, "begin-anew"], lib) as app:
        assert text(answer(ask(app, "nothing"), 1)) == "nothing\n"
        app.process.terminate()
        if lib == "debian":
            assert app.ends() == 0  # accepting was over for ever
        else:
            wait_for(lambda: "accept" in app.log())
            assert text(answer(ask(app, "nothing"), 1)) == "nothing\n"


@both
def test_b20_a_peer_that_dribbles_holds_nobody_for_long(lib):
    with App(PROBE, lib, env={"LIBFCGI_OS_CLOSE_POLL_TIMEOUT": "300"}) as app:
        slow = app.connect()
        slow.send(request(1, query("nothing"), keep=0, end=False))
        assert answer(slow, 1)
        other = ask(app, "nothing")
        other.s.settimeout(0.02)
        end, reply = time.monotonic() + 1.0, b""
        while time.monotonic() < end and not reply:
            with contextlib.suppress(OSError):
                slow.send(b"x")
            with contextlib.suppress(socket.timeout):
                reply = other.s.recv(1000)
        assert bool(reply) == (lib == "ours")


@both
@pytest.mark.parametrize("peer", ["::1", "unix"])
def test_b21_only_web_servers_of_the_list_are_let_in(peer, lib):
    listener = None
    if peer == "::1":
        listener = socket.socket(socket.AF_INET6)
        listener.bind(("::1", 0))
        listener.listen(5)

    def served(addrs):
        with App(PROBE, lib, {"FCGI_WEB_SERVER_ADDRS": addrs}, listener=listener.dup() if listener else None) as app:
            c = socket.socket(socket.AF_INET6 if listener else socket.AF_UNIX)
            c.settimeout(20 * SLOW)
            c.connect(app.where)
            with contextlib.suppress(OSError):
                c.sendall(request(1, query("nothing"), keep=0))
                return b"nothing" in c.recv(1000)
            return False
    assert served("127.0.0.1,10.0.0.1") == (lib == "debian")
    if peer == "::1":
        assert served("127.0.0.1,0:0::1")
        listener.close()


@both
def test_b22_a_shortage_of_descriptors_is_waited_for(lib):
    with App(PROBE, lib) as app:
        pid = app.process.pid
        assert text(answer(ask(app, "nothing"), 1)) == "nothing\n"
        soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, hard))
        for _ in range(2):  # one accept had begun before the limit
            c = ask(app, "nothing")
            with contextlib.suppress(EOFError, OSError):
                c.s.settimeout(SILENCE)
                c.end_of(1)
            c.s.close()
        if lib == "debian":
            assert app.ends() == 0 and "accept -24" in app.log()
        else:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
            assert text(answer(ask(app, "nothing"), 1)) == "nothing\n"
