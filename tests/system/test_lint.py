# SPDX-License-Identifier: MIT
"""What weir check finds beyond the words of a configuration: roots that nobody can enter, and what can hardly be meant."""
import grp
import os
import pwd
import re
import socket
import subprocess

import pytest
from weirlib import IS_ROOT, ROOT, WEIR, check_says

SITE = "site a {{ listen http://*:8080; root {root}; {more} }}\n"


@pytest.fixture
def folder(tmp_path):
    p = tmp_path
    while str(p) != "/":  # everybody may enter those that pytest made
        if not os.stat(p).st_mode & 1:
            os.chmod(p, os.stat(p).st_mode | 0o011)
        p = p.parent
    return tmp_path


def test_a_pool_that_nobody_uses(folder):
    pools = "".join(f"pool {n} {{ connect unix:/run/{n}.sock }}\n" for n in ("used", "asked", "filters", "spare"))
    text = SITE.format(root=folder, more="authorizer asked; route /x/ { pool used }; route *.md { filter filters }") + pools
    status, said = check_says(text, folder)
    assert status == 0 and said.count("nobody uses the pool") == 1 and ":5:1: warning: nobody uses the pool spare" in said.replace("weir.conf", ""), said
    status, said = check_says("pool p { connect unix:/run/p.sock; publish f }\nlistener f { address fastcgi+unix:/run/f.sock }\n", folder)
    assert "nobody uses" not in said


def test_a_listener_without_a_site(folder):
    status, said = check_says("listener web { address http://*:8080 http://*:8081 }\nlistener other { address http://*:9090 }\n" + f"site a {{ listen web; root {folder} }}\n", folder)
    assert status == 0 and "nothing answers on http://*:9090" in said and said.count("nothing answers") == 1


def test_php_without_a_root(folder):
    status, said = check_says("site a { listen http://*:8080; route /x/ { php p } }\npool p { connect unix:/run/p.sock }\n", folder)
    assert ":1:32: " in said and "php has no root: every request is answered 404: write root DIR here or in the site" in said
    assert "php has no root" not in check_says(f"site a {{ listen http://*:8080; php p; root {folder} }}\npool p {{ connect unix:/run/p.sock }}\n", folder)[1]


def test_a_program_without_its_path(folder):
    user = "user weir-demo;" if IS_ROOT else ""
    status, said = check_says(f"site a {{ listen http://*:8080; pool p }}\npool p {{ run env FOO=1 x; {user} }}\n", folder)
    assert status == 1 and f"there is no program {folder}/env: programs are not searched for: write its whole path, such as /usr/bin/env" in said


def test_more_variables_than_a_pool_may_have(folder):
    pool = "site a {{ listen http://*:8080; pool p }}\npool p {{ connect unix:/run/p.sock; {} }}\n"
    status, said = check_says(pool.format("; ".join(f"env A{i} 1" for i in range(1000))), folder)
    assert status == 0, said
    status, said = check_says(pool.format("; ".join(f"env A{i} 1" for i in range(1001))), folder)
    assert status == 1 and '"A1000" is one variable too many: a pool has at most 1000' in said


def test_a_root_that_is_not_there(folder):
    status, said = check_says(SITE.format(root=folder / "none", more=""), folder)
    assert status == 1 and f"the root {folder}/none is no folder" in said


@pytest.mark.skipif(not IS_ROOT, reason="needs other users")
def test_a_root_that_the_gateway_cannot_enter(folder):
    gw = pwd.getpwnam("weir-gw")
    root = folder / "in" / "root"
    root.mkdir(parents=True)
    text = SITE.format(root=root, more="")
    (folder / "in").chmod(0o700)
    status, said = check_says(text, folder)
    assert status == 1 and f"the user weir-gw cannot enter the folder {folder}/in" in said
    (folder / "in").chmod(0o710)
    os.chown(folder / "in", 0, gw.pw_gid)
    assert check_says(text, folder)[0] == 0  # its own group


@pytest.mark.skipif(not IS_ROOT, reason="needs other users")
@pytest.mark.parametrize("word", ["links", "send-file"])
def test_a_folder_of_a_route_that_the_gateway_cannot_enter(folder, word):
    (folder / "public").mkdir()
    (folder / "in").mkdir(mode=0o700)
    (folder / "in" / "files").mkdir()
    text = f"site a {{ listen http://*:8080; root {folder}/public; php p; {word} {folder}/in/files }}\npool p {{ connect unix:/run/p.sock }}\n"
    status, said = check_says(text, folder)
    assert status == 0 and f"warning: the user weir-gw cannot enter the folder {folder}/in" in said
    (folder / "in").chmod(0o711)
    assert "cannot enter" not in check_says(text, folder)[1]


@pytest.mark.skipif(not IS_ROOT, reason="needs other users")
def test_a_root_that_one_may_not_look_into(folder):
    (folder / "in").mkdir(mode=0o700)
    (folder / "in" / "root").mkdir()
    path = folder / "weir.conf"
    path.write_text(SITE.format(root=folder / "in" / "root", more=""))
    path.chmod(0o644)
    r = subprocess.run([WEIR, "check", str(path)], capture_output=True, text=True, user="nobody", group="nogroup", extra_groups=[])
    assert r.returncode == 1 and f"the root {folder}/in/root may not be looked into: open it with chmod o+x" in r.stderr, r.stderr


@pytest.mark.skipif(not IS_ROOT, reason="needs other users")
def test_a_group_that_the_gateway_is_a_member_of(folder):
    root = folder / "in" / "root"
    root.mkdir(parents=True)
    (folder / "in").chmod(0o710)
    groups = [g.gr_gid for g in grp.getgrall() if "weir-gw" in g.gr_mem]
    other = grp.getgrnam("games").gr_gid
    os.chown(folder / "in", 0, groups[0] if groups else other)
    assert check_says(SITE.format(root=root, more=""), folder)[0] == (0 if groups else 1)


def test_logs_that_cannot_be_written(folder):
    logs = folder / "logs"
    text = f"weir {{ log {logs}/access.log; app-log {logs}/app.log }}\nsite a {{ listen http://*:8080; root {folder} }}\n"
    status, said = check_says(text, folder)
    assert status == 0 and f"access.log: there is no folder {logs}" in said and f"app.log: there is no folder {logs}" in said, said
    logs.mkdir()
    if not IS_ROOT:
        assert "may not write" not in check_says(text, folder)[1]
        return
    os.chmod(logs, 0o750)
    said = check_says(text, folder)[1]
    assert f"access.log: weir-gw may not write {logs}:" in said and f"app.log: weir may not write {logs}:" in said, said
    os.chown(logs, pwd.getpwnam("weir").pw_uid, pwd.getpwnam("weir-gw").pw_gid)
    os.chmod(logs, 0o770)
    assert "may not write" not in check_says(text, folder)[1]
    (logs / "access.log").write_text("of another one\n")
    assert f"access.log: weir-gw may not write {logs}/access.log:" in check_says(text, folder)[1]


@pytest.mark.skipif(not IS_ROOT, reason="the gateway is whoever runs it")
def test_a_socket_that_the_gateway_may_not_connect_to(folder):
    path = folder / "app.sock"
    text = f"site a {{ listen http://*:8080; pool p }}\npool p {{ connect unix:{path} }}\n"
    assert "warning" not in check_says(text, folder)[1]  # it may come
    path.write_text("")
    assert f"{path} is no socket" in check_says(text, folder)[1]
    path.unlink()
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(path))
        os.chown(path, 0, grp.getgrnam("www-data").gr_gid)
        os.chmod(path, 0o660)
        status, said = check_says(text, folder)
        assert status == 0 and f"pool p: the user weir-gw may not connect to {path}: usermod -a -G www-data weir-gw" in said, said
        os.chmod(path, 0o600)
        assert f"the user weir-gw may not connect to {path}: whoever makes it decides" in check_says(text, folder)[1]
        os.chmod(path, 0o666)
        assert "warning" not in check_says(text, folder)[1]
        os.chmod(folder, 0o700)
        assert f"the user weir-gw cannot enter the folder {folder}" in check_says(text, folder)[1]


def test_names_that_two_sites_have(folder):
    status, said = check_says(f"site a b {{ listen http://*:1; root {folder} }}\nsite c B {{ listen http://*:1; root {folder} }}\n", folder)
    assert status == 1 and '2:8: "B" is defined twice' in said


def test_certificates_that_sites_name_are_looked_for(folder):
    text = f"site a {{{{ listen http://*:8080 https://*:8443; root {folder}; files; {{}} }}}}\n"
    for name in ("a.pem", "a.key", "live/fullchain.pem", "live/privkey.pem"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("")
    for tls in (f"tls {folder}/a", f"tls {folder}/live", f"tls {folder}/a.pem {folder}/a.key"):
        assert check_says(text.format(tls), folder)[0] == 0, tls
    status, said = check_says(text.format(f"tls {folder}/b"), folder)
    assert status == 1 and f"there is neither {folder}/b/fullchain.pem nor {folder}/b.pem, or not its key" in said
    status, said = check_says(text.format(f"tls {folder}/a.pem {folder}/b.key"), folder)
    assert status == 1 and f"there is no file {folder}/b.key: check the path" in said


def test_words_of_nginx_are_translated(folder):
    status, said = check_says("server { listen 80 }\nsite a { listen http://*:8080; gzip on; location /x/ { files } route / { alias /x; return 404 } }\npool p { connect unix:/x; pm dynamic }\n", folder)
    assert status == 1
    for advice in ("write site NAME { ... }", "write compress yes", "write route PATTERN { ... }", "write root DIR and strip PREFIX in the route", "write redirect STATUS URL, or deny", "write workers N, or workers A..B"):
        assert advice in said, said


@pytest.mark.skipif(not IS_ROOT, reason="needs other users")
def test_the_page_for_those_who_come_from_nginx_has_a_configuration_without_a_mistake(folder):
    with open(os.path.join(ROOT, "docs/from-nginx.md"), encoding="utf-8") as f:
        text = re.findall(r"```\n(site .*?)```", f.read(), re.S)[0]
    for name in ("public", "media", "live"):
        (folder / name).mkdir()
    for name in ("live/fullchain.pem", "live/privkey.pem", "shop.htpasswd"):
        (folder / name).write_text("")
    for old, new in (("/etc/letsencrypt/live/shop.example", f"{folder}/live"), ("/srv/shop", str(folder)), ("/etc/weir", str(folder)), ("user shop", "user weir-demo")):
        text = text.replace(old, new)
    status, said = check_says(text, folder)
    assert status == 0 and "warning" not in said, said
