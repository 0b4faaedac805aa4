# SPDX-License-Identifier: MIT
"""auth basic: files of htpasswd and others, what the app is told, files that change, and who asks for too much at once."""
import base64
import contextlib
import http.client
import json
import os
import subprocess
import threading
import warnings

import pytest
from weirlib import IS_ROOT, SLOW, USER, WEIR, Weir, check_says, free_port, wait_for

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import crypt

APP = f"pool app {{ run ./demo; {USER} }}\n"


def htpasswd(name, password, cost=5):
    return subprocess.run(["/usr/bin/htpasswd", "-nbBC", str(cost), name, password], capture_output=True, text=True, check=True).stdout.strip() + "\n"


def users():
    return (htpasswd("bob", "b:pass word") + "# a comment\n" + f"six:{crypt.crypt('sixth', '$6$saltsalt$')}\n" + f"five:{crypt.crypt('fifth', '$5$saltsalt$')}\n"
            + f"yes:{crypt.crypt('yes pass', '$y$j9T$F5Jx5fExrKuPp53xLKQ..1$')}\n" + "old:$apr1$abc$Q8O3yYgBPNPaxuW7zDzCv0\n")


def basic(name, password):
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


def params(r):
    return dict(line.split("=", 1) for line in r.text.decode().splitlines() if "=" in line)


@pytest.fixture(scope="module")
def w():
    config = """
site a.test { listen http://127.0.0.1:PORT; root public; auth basic users "The staff"
    route /app/ { pool app }
    route /both/ { pool app; auth basic ./users { forward yes } }
    route /open/ { pool app; auth no }
    route /far/ { pool app; auth no; allow 10.0.0.1 }
    route /one/ { files; auth basic one }
    route /missing/ { files; auth basic missing }
}
site b.test { listen http://127.0.0.1:PORT; root public; index secret.html index.html; route /secret.html { auth basic users; files } }
""" + APP
    files = {"users": users(), "one": htpasswd("one", "two"), "public/x": "the file", "public/secret.html": "the page", "public/sub/index.html": "sub", "public/one/x": "one"}
    with Weir(config, files, log="DIR/run/keep-access json") as weir:
        yield weir


def test_a_name_and_its_password_get_in_and_nothing_else(w):
    for name, password in (("bob", "b:pass word"), ("six", "sixth"), ("five", "fifth"), ("yes", "yes pass")):
        assert w.get("/x", headers=basic(name, password)).text == b"the file", name
        assert w.get("/x", headers=basic(name, password)).text == b"the file", name  # remembered
        for wrong in (password + "x", password[:-1], "", name):
            assert w.get("/x", headers=basic(name, wrong)).status == 401, (name, wrong)
    for headers in ({}, basic("nobody", "x"), basic("old", "x"), basic("", ""), {"Authorization": "Basic !"}, {"Authorization": "Bearer x"}, basic("b", "ob:b:pass word")):
        r = w.get("/x", headers=headers)
        assert r.status == 401 and r.getheader("WWW-Authenticate") == 'Basic realm="The staff", charset="UTF-8"'
        assert b"the file" not in r.text


def test_two_fields_are_refused(w):
    field = "Authorization: " + basic("six", "sixth")["Authorization"] + "\r\n"
    assert b" 200 " in w.raw(f"GET /x HTTP/1.0\r\n{field}\r\n".encode()).split(b"\r\n")[0]
    assert b" 400 " in w.raw(f"GET /x HTTP/1.0\r\n{field}{field}\r\n".encode()).split(b"\r\n")[0]


def test_the_app_is_told_who_it_is_and_not_the_password(w):
    p = params(w.get("/app/env", headers=basic("six", "sixth")))
    assert p["REMOTE_USER"] == "six" and p["AUTH_TYPE"] == "Basic" and "HTTP_AUTHORIZATION" not in p
    p = params(w.get("/both/env", headers=basic("six", "sixth")))
    assert p["REMOTE_USER"] == "six" and p["HTTP_AUTHORIZATION"].startswith("Basic ")
    p = params(w.get("/open/env", headers=basic("six", "wrong")))  # nobody of ours looks at it
    assert "REMOTE_USER" not in p and "AUTH_TYPE" not in p and p["HTTP_AUTHORIZATION"].startswith("Basic ")

    def line():
        with open(os.path.join(w.run_dir, "keep-access")) as f:
            return [e for e in map(json.loads, f) if e.get("target") == "/app/env" and e["status"] == 200]
    assert wait_for(line)[0]["user"] == "six"


def test_a_connection_stays_and_a_body_is_not_read_before(w):
    c = http.client.HTTPConnection("127.0.0.1", w.port, timeout=20 * SLOW)
    for headers, status in (({}, 401), (basic("bob", "wrong"), 401), (basic("bob", "b:pass word"), 200), ({}, 401), (basic("bob", "b:pass word"), 200)):
        c.request("GET", "/x", headers=headers)
        r = c.getresponse()
        assert r.status == status and r.read() and r.getheader("Connection") is None
    c.close()
    for headers, first in ((basic("bob", "no"), b"HTTP/1.1 401 "), (basic("bob", "b:pass word"), b"HTTP/1.1 100 ")):
        with w.connect() as s:
            s.sendall(f"POST /app/upload HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\nAuthorization: {headers['Authorization']}\r\n\r\n".encode())
            answer = b""
            while b"\r\n\r\n" not in answer:
                answer += s.recv(4096)
            assert answer.startswith(first)
            if b" 100 " in first:
                s.sendall(b"abc")
                while b"3 bytes" not in answer:
                    answer += s.recv(4096)
    r = w.get("/app/upload", "POST", b"x" * 300000, headers=basic("yes", "yes pass"))
    assert r.status == 200 and r.text.startswith(b"300000 bytes")
    assert w.get("/app/upload", "POST", b"x" * 300000, headers=basic("yes", "no")).status == 401


def test_each_file_has_its_own_users_and_a_missing_one_lets_nobody_in(w):
    assert w.get("/one/x", headers=basic("one", "two")).text == b"one"
    assert w.get("/one/x", headers=basic("six", "sixth")).status == 401
    assert w.get("/x", headers=basic("one", "two")).status == 401
    assert w.get("/missing/x").status == 401
    assert w.get("/missing/x", headers=basic("six", "sixth")).status == 500
    assert w.get("/far/env", headers=basic("six", "sixth")).status == 403
    assert 'the file of users "' in w.log() and "the user old cannot log in: the hash is apr1" in w.log()


def test_an_index_does_not_get_around_it(w):
    assert w.get("/", host="b.test").status == 403
    assert w.get("/sub/", host="b.test").text == b"sub"
    assert w.get("/secret.html", host="b.test").status == 401
    assert w.get("/secret.html", host="b.test", headers=basic("six", "sixth")).text == b"the page"


def test_no_hash_is_printed(w):
    r = subprocess.run([WEIR, "check", "--effective", "a.test", w.config], capture_output=True, text=True)
    assert "auth basic" in r.stdout and f"{w.dir}/users" in r.stdout
    for out in (r.stdout + r.stderr, w.command("status", "--json").stdout, w.log()):
        assert "$2y$" not in out and "$6$" not in out and "Q8O3y" not in out


@pytest.mark.threads
def test_a_file_that_changes_is_read_again():
    with Weir("site a { listen http://127.0.0.1:PORT; root public; auth basic users }\n", {"users": htpasswd("a", "first"), "public/x": "x"}) as w:
        assert w.get("/x", headers=basic("a", "first")).status == 200
        w.write("users", htpasswd("a", "second") + htpasswd("b", "bee"))
        wait_for(lambda: w.get("/x", headers=basic("b", "bee")).status == 200)
        assert w.get("/x", headers=basic("a", "first")).status == 401 and w.get("/x", headers=basic("a", "second")).status == 200
        subprocess.run(["/usr/bin/htpasswd", "-bBC", "5", f"{w.dir}/users", "c", "see"], check=True, capture_output=True)
        wait_for(lambda: w.get("/x", headers=basic("c", "see")).status == 200)
        os.rename(w.write("users.new", htpasswd("c", "sea")), f"{w.dir}/users")
        wait_for(lambda: w.get("/x", headers=basic("c", "see")).status == 401)
        assert w.get("/x", headers=basic("c", "sea")).status == 200 and w.get("/x", headers=basic("a", "second")).status == 401


def cpu(pid):
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


@pytest.mark.nosan
def test_a_name_that_nobody_has_costs_what_a_wrong_password_does():
    with Weir("site a { listen http://127.0.0.1:PORT; root public; auth basic users }\n", {"users": htpasswd("a", "first", 12), "public/x": "x"}, program="threads 1") as w:
        pid, spent = w.gateway(), []
        for name in ("a", "somebody"):
            before = cpu(pid)
            for i in range(3):
                assert w.get("/x", headers=basic(name, f"wrong {i}")).status == 401
            spent.append(cpu(pid) - before)
        assert spent[0] > 10 and 0.5 < spent[1] / spent[0] < 2, spent


@pytest.mark.nosan
def test_who_guesses_holds_up_nobody_else():
    config = "site a { listen http://127.0.0.1:PORT; root public; auth basic users; route /open/ { auth no; files } }\n"
    files = {"users": htpasswd("a", "first", 11) + htpasswd("b", "bee", 4), "public/x": "x", "public/open/x": "open"}
    with Weir(config, files, program="threads 1; trust 127.0.0.1") as w:
        assert w.get("/x", headers=basic("a", "first")).status == 200
        seen, lock = [], threading.Lock()

        def guess(address, n):
            for i in range(n):
                r = w.get("/x", headers={**basic("a", f"{address} {i}"), "X-Forwarded-For": address})
                with lock:
                    seen.append((r.status, r.getheader("Retry-After")))

        def at_once(addresses, n):
            seen.clear()
            threads = [threading.Thread(target=guess, args=(a, n)) for a in addresses]
            for t in threads:
                t.start()
            while any(t.is_alive() for t in threads):
                assert w.get("/open/x").text == b"open"
                assert w.get("/x", headers={**basic("a", "first"), "X-Forwarded-For": "203.0.113.1"}).status == 200  # remembered
            for t in threads:
                t.join()
            return set(seen)
        assert at_once(["203.0.113.7"] * 12, 2) == {(401, None), (429, "1")}
        assert at_once([f"203.0.113.{i}" for i in range(10, 60)], 1) == {(401, None), (503, "1")}
        wait_for(lambda: w.get("/x", headers=basic("b", "bee")).status == 200)


@pytest.mark.threads
def test_a_client_that_leaves_meanwhile_leaves_nothing_behind():
    with Weir("site a { listen http://127.0.0.1:PORT; root public; auth basic users }\n", {"users": htpasswd("a", "first", 10), "public/x": "x"}, program="threads 1") as w:
        for i in range(20):
            with w.connect() as s:
                s.sendall(f"GET /x HTTP/1.1\r\nHost: a\r\nAuthorization: {basic('a', f'no {i}')['Authorization']}\r\n\r\n".encode())
        wait_for(lambda: w.status()["gateway"]["connections"] == 0)
        wait_for(lambda: w.get("/x", headers=basic("a", "first")).status == 200)


@pytest.mark.skipif(not IS_ROOT, reason="changes owners")
def test_a_tenant_names_only_files_of_his_own():
    """The file is read with the rights of control, which may be able to read more than he is."""
    config = "tenants t/*.conf\ndefaults site { listen http://127.0.0.1:PORT }\n"
    site = "site {name} {{ root ~/; auth basic {file} }}\n"
    import pwd
    home = pwd.getpwnam("weir-demo").pw_dir
    with contextlib.ExitStack() as stack:
        def prepare(weir):
            mine = weir.write("mine", htpasswd("a", "first"))
            os.chown(mine, pwd.getpwnam("weir-demo").pw_uid, 0)
            weir.write("others", htpasswd("a", "first"))
            os.symlink(f"{weir.dir}/others", f"{weir.dir}/link")
            text = "".join(site.format(name=f"{n}.test", file=f"{weir.dir}/{n}").replace("root ~/", f"root {home}") for n in ("mine", "others", "link"))
            weir.write("t/weir-demo.conf", text)
        w = stack.enter_context(Weir(config, prepare=prepare))
        status = {n: w.get("/nothing", host=f"{n}.test", headers=basic("a", "first")).status for n in ("mine", "others", "link")}
        assert status["others"] == 500 and status["link"] == 500 and status["mine"] != 500, (status, w.log())


def test_check_tells_of_hashes_that_cannot_be_used(tmp_path):
    (tmp_path / "users").write_text("old:$apr1$abc$Q8O3yYgBPNPaxuW7zDzCv0\nplain:secret\n")
    status, said = check_says(f"site a {{ listen http://127.0.0.1:{free_port()}; root /; auth basic users }}", str(tmp_path))
    assert status == 0 and "users:1:1: warning: the user old cannot log in: the hash is apr1 (MD5), which crypt does not know" in said
    assert "users:2:1: warning: the user plain cannot log in" in said and "secret" not in said and "Q8O3" not in said
