# SPDX-License-Identifier: MIT
"""Applications that others wrote, as Debian has them, each with a site of at most six lines: DokuWiki, and MediaWiki on SQLite, used as
people do with a browser, by HTTPS and both versions of HTTP."""
import html.parser
import os
import re
import shutil
import struct
import subprocess
import zlib
from urllib.parse import urlencode

import pytest
from certs import self_signed
from stage import reachable
from weirlib import IS_ROOT, ROOT, SLOW, USER, Weir, free_port, wait_for

APPS = os.path.join(ROOT, ".cache/apps")
PICTURES = os.environ.get("WEIR_PLOTS", os.path.join(ROOT, "build-tests", "plots"))
PASSWORD = "correct horse 7"
VERSIONS = ["--http1.1", "--http2"]
pytestmark = pytest.mark.nosan

DOKUWIKI = """site wiki.test {
    listen https://127.0.0.1:TLSPORT http://127.0.0.1:PORT; tls DIR/tls
    root   DIR/app/usr/share/dokuwiki; links DIR/app/var/lib/dokuwiki
    php    wiki
    route /bin/ /inc/ /vendor/ { deny }
}
"""
MEDIAWIKI = """site wiki.test {
    listen https://127.0.0.1:TLSPORT http://127.0.0.1:PORT; tls DIR/tls
    root   APP
    php    wiki
    route /images/ { root DIR/state; files }
}
"""


class Form(html.parser.HTMLParser):
    """The fields of the form with this id or name, as a browser would send them."""

    def __init__(self, text, name):
        super().__init__()
        self.name, self.inside, self.area, self.fields, self.action = name, False, None, {}, None
        self.feed(text)
        assert self.action is not None, f"no form {name} in:\n{text[-6000:]}"

    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        if tag == "form":
            self.inside = self.name in (a.get("id"), a.get("name"))
            if self.inside:
                self.action = a.get("action", "")
        elif self.inside and tag == "input" and a.get("name") and a.get("type") not in ("submit", "checkbox", "file", "radio"):
            self.fields[a["name"]] = a.get("value") or ""
        elif self.inside and tag == "textarea":
            self.area = a["name"]
            self.fields[self.area] = ""

    def handle_data(self, data):
        if self.area:
            self.fields[self.area] += data

    def handle_endtag(self, tag):
        if tag == "textarea":
            self.area = None
        elif tag == "form":
            self.inside = False


class Browser:
    """One visitor, with cookies; follows redirects."""

    def __init__(self, site, version):
        self.site, self.version, self.jar = site, version, f"{site.dir}/jar{version}"
        self.base = f"https://wiki.test:{site.tls_port}"

    def bytes(self, path, *args, status=200):
        url = path if path.startswith("https:") else self.base + path
        r = subprocess.run(["curl", "-sSL", "--cacert", f"{self.site.dir}/tls/fullchain.pem", "--resolve", f"wiki.test:{self.site.tls_port}:127.0.0.1",
                            self.version, "-b", self.jar, "-c", self.jar, "-w", "\n%{http_code} %{http_version}", *args, url], capture_output=True, timeout=60 * SLOW)
        body, said = r.stdout.rsplit(b"\n", 1)
        assert said == b"%d %s" % (status, b"2" if self.version == "--http2" else b"1.1"), (url, said, r.stderr, body[-3000:], self.site.log())
        return body

    def get(self, path, *args, **query):
        return self.bytes(path + ("?" + urlencode(query) if query else ""), *args).decode()

    def send(self, form, file=None, status=200, **fields):
        """Sends a form; with a file as multipart/form-data, else urlencoded."""
        all_fields = {**form.fields, **fields}
        if file:
            args = [a for name, value in all_fields.items() for a in ("--form-string", f"{name}={value}")] + ["-F", file]
        else:
            args = ["--data-binary", urlencode(all_fields)]
        return self.bytes(form.action, *args, status=status).decode()


class Site(Weir):
    """One of the applications, installed by prepare()."""

    def __init__(self, lines, prepare, env=""):
        self.tls_port = free_port()
        assert len(lines.strip().split("\n")) <= 6
        super().__init__(lines.replace("TLSPORT", str(self.tls_port)) + f"pool wiki {{ php; {USER} workers 4; {env} }}\n", prepare=prepare)

    def configure(self, config):
        super().configure(config.replace("APP", getattr(self, "app", "")))

    def curl_status(self, path):
        return subprocess.run(["curl", "-sk", "--resolve", f"wiki.test:{self.tls_port}:127.0.0.1", "-o", "/dev/null", "-w", "%{http_code}",
                               f"https://wiki.test:{self.tls_port}{path}"], capture_output=True, text=True, timeout=60 * SLOW).stdout


def own(folder):
    if IS_ROOT:
        subprocess.run(["chown", "-R", "weir-demo", folder], check=True)


def certificate(w):
    self_signed(w.dir + "/tls/fullchain.pem", w.dir + "/tls/fullchain.key", "wiki.test")
    os.rename(w.dir + "/tls/fullchain.key", w.dir + "/tls/privkey.pem")


def picture(folder, name, size=200):
    """A PNG of many colours, another one for each name: its path, and its bytes."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    rows = b"".join(b"\0" + b"".join(bytes((x * 255 // size, y * 255 // size, (x ^ y) & 255)) for x in range(size)) for y in range(size))
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"tEXt", b"Title\0" + name.encode()) + chunk(b"IEND", b"")
    path = os.path.join(folder, name)
    with open(path, "wb") as f:
        f.write(data)
    return path, data


def photograph(site, path, name):
    """How a page looks in Chromium: a PNG beside the other pictures of the tests."""
    os.makedirs(PICTURES, exist_ok=True)
    out, home = os.path.join(PICTURES, name + ".png"), os.path.join(site.dir, "chromium")
    if os.path.exists(out):
        os.unlink(out)
    subprocess.run(["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={home}", "--ignore-certificate-errors",
                    f"--host-resolver-rules=MAP wiki.test 127.0.0.1:{site.tls_port}, MAP * ~NOTFOUND", "--window-size=1200,900", "--hide-scrollbars",
                    f"--screenshot={out}", f"https://wiki.test:{site.tls_port}{path}"], check=True, capture_output=True, timeout=90 * SLOW)
    assert os.path.getsize(out) > 10000


# ---- DokuWiki ----

def install_dokuwiki(w):
    """The package's tree below the test's folder, where its own programs name /etc, /usr/share and /var/lib."""
    app = os.path.join(w.dir, "app")
    shutil.copytree(f"{APPS}/dokuwiki", app, symlinks=True)
    for link in ("tpl", "plugins"):  # the package's own links, which lead out of the root
        os.unlink(f"{app}/usr/share/dokuwiki/lib/{link}")
        os.symlink(f"{app}/var/lib/dokuwiki/lib/{link}", f"{app}/usr/share/dokuwiki/lib/{link}")
    for name in ("inc/preload.php", "inc/load.php", "lib/exe/js.php", "lib/exe/jquery.php", "vendor/composer/autoload_static.php"):
        path = f"{app}/usr/share/dokuwiki/{name}"
        with open(path) as f:
            text = f.read()
        text = re.sub(r"(['\"])/(etc|usr/share|var/lib)/", rf"\1{app}/\2/", text)
        with open(path, "w") as f:
            f.write(text)
    conf = app + "/etc/dokuwiki/"
    secret = subprocess.run(["openssl", "passwd", "-6", PASSWORD], capture_output=True, text=True, check=True).stdout.strip()
    for name, text in {"local.php": "<?php $conf['title'] = 'The weir'; $conf['useacl'] = 1; $conf['superuser'] = '@admin'; $conf['userewrite'] = 2;"
                                    f" $conf['savedir'] = '{app}/var/lib/dokuwiki/data'; $conf['updatecheck'] = 0;",
                       "users.auth.php": f"alice:{secret}:Alice:alice@wiki.test:admin,user\n", "acl.auth.php": "*\t@ALL\t1\n*\t@user\t8\n"}.items():
        if os.path.islink(conf + name):
            os.unlink(conf + name)
        with open(conf + name, "w") as f:
            f.write(text)
    for name in ("acl", "data"):
        own(f"{app}/var/lib/dokuwiki/{name}")
    own(conf)
    certificate(w)


@pytest.fixture(scope="module")
def dokuwiki():
    with Site(DOKUWIKI, install_dokuwiki) as w:
        yield w


@pytest.mark.xdist_group("dokuwiki")
@pytest.mark.parametrize("version", VERSIONS)
def test_dokuwiki_is_used_as_people_do(dokuwiki, version, tmp_path):
    b, page = Browser(dokuwiki, version), "weirs" + version[6:].replace(".", "")
    assert "Alice" not in b.get("/doku.php")
    assert "username or password was wrong" in b.send(Form(b.get("/doku.php", do="login"), "dw__login"), status=403, u="alice", p="wrong")
    assert "Logged in as" in b.send(Form(b.get("/doku.php", do="login"), "dw__login"), u="alice", p=PASSWORD)
    path, data = picture(str(tmp_path), f"dam-{page}.png")
    b.send(Form(b.get("/doku.php", id="start", do="media", tab_files="upload"), "dw__upload"), file=f"upload=@{path};type=image/png")
    assert b.bytes(f"/lib/exe/fetch.php/dam-{page}.png") == data
    text = f"====== A low dam ======\nIt regulates a stream: zwirbel{page}.\n\n{{{{:dam-{page}.png|}}}}\n"
    assert f"zwirbel{page}" in b.send(Form(b.get(f"/doku.php/{page}", do="edit"), "dw__editform"), wikitext=text, **{"do[save]": "1"})
    shown = b.get(f"/doku.php/{page}")
    assert "A low dam" in shown and f"/lib/exe/fetch.php/dam-{page}.png" in shown
    b.bytes(f"/lib/exe/taskrunner.php?id={page}")  # what a browser loads with each page: it writes the index
    assert f"/doku.php/{page}" in b.get("/doku.php", do="search", q=f"zwirbel{page}")
    for asset in set(re.findall(r'(?:href|src)="(/lib/[^"]+)"', shown)):
        assert b.bytes(asset.replace("&amp;", "&"))
    assert dokuwiki.curl_status("/inc/init.php") == dokuwiki.curl_status("/vendor/autoload.php") == "403"
    if version == "--http2":
        photograph(dokuwiki, f"/doku.php/{page}", "dokuwiki")


# ---- MediaWiki ----

def install_mediawiki(w):
    w.app = f"{APPS}/mediawiki/usr/share/mediawiki"
    if IS_ROOT and not reachable(w.app):
        shutil.copytree(w.app, w.dir + "/app", symlinks=True)
        w.app = w.dir + "/app"
    state = w.dir + "/state"
    for name in ("", "/images", "/data"):
        os.mkdir(state + name)
    certificate(w)
    own(state)
    user = ["runuser", "-u", "weir-demo", "--"] if IS_ROOT else []
    r = subprocess.run([*user, "php8.2", f"{w.app}/maintenance/install.php", "--dbtype", "sqlite", "--dbpath", state + "/data", "--pass", PASSWORD, "--scriptpath", "",
                        "--server", f"https://wiki.test:{w.tls_port}", "--confpath", state, "--skins", "Vector", "The weir", "Alice"], capture_output=True, text=True, timeout=100 * SLOW)
    assert r.returncode == 0, r.stdout + r.stderr
    with open(state + "/LocalSettings.php", "a") as f:
        f.write(f"$wgEnableUploads = true; $wgUploadDirectory = '{state}/images'; $wgUploadPath = '/images'; $wgArticlePath = '/wiki/$1'; $wgCacheDirectory = '{state}/data';\n"
                "$wgMainCacheType = CACHE_DB; $wgUseImageMagick = false; $wgJobRunRate = 1;\n")


@pytest.fixture(scope="module")
def mediawiki():
    with Site(MEDIAWIKI, install_mediawiki, "env MW_CONFIG_FILE DIR/state/LocalSettings.php") as w:
        yield w


@pytest.mark.xdist_group("mediawiki")
@pytest.mark.parametrize("version", VERSIONS)
def test_mediawiki_is_used_as_people_do(mediawiki, version, tmp_path):
    b, page = Browser(mediawiki, version), "Weirs" + version[6:].replace(".", "")
    assert "Main Page" in b.get("/wiki/Main_Page")
    assert "Incorrect username or password" in b.send(Form(b.get("/wiki/Special:UserLogin"), "userlogin"), wpName="Alice", wpPassword="wrong", authAction="login")
    assert 'id="pt-logout"' in b.send(Form(b.get("/wiki/Special:UserLogin"), "userlogin"), wpName="Alice", wpPassword=PASSWORD, authAction="login")
    path, data = picture(str(tmp_path), f"Dam-{page}.png")
    sent = b.send(Form(b.get("/wiki/Special:Upload"), "mw-upload-form"), file=f"wpUploadFile=@{path};type=image/png", wpDestFile=f"Dam-{page}.png", wpUpload="Upload file")
    assert f"File:Dam-{page}.png" in sent
    at = re.search(rf'href="((?:https://[^"/]+)?/images/[^"]+/Dam-{page}.png)"', sent)[1]
    assert b.bytes(at) == data
    shown = b.send(Form(b.get("/index.php", title=page, action="edit"), "editform"), wpSave="1",
                   wpTextbox1=f"== A low dam ==\nIt regulates a stream: zwirbel{page}.\n\n[[File:Dam-{page}.png]]\n")
    assert f"zwirbel{page}" in shown and f"/Dam-{page}.png" in shown and f"/wiki/{page}" in shown
    wait_for(lambda: f'href="/wiki/{page}"' in b.get("/index.php", title="Special:Search", search=f"zwirbel{page}", fulltext="1"))
    for asset in set(re.findall(r'(?:href|src)="(/(?:load.php|resources|skins)[^"]+)"', shown)):
        assert b.bytes(asset.replace("&amp;", "&"))
    assert b'"wikitext"' in b.bytes(f"/api.php?action=parse&page={page}&prop=wikitext&format=json")
    if version == "--http2":
        photograph(mediawiki, f"/wiki/{page}", "mediawiki")
