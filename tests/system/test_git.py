# SPDX-License-Identifier: MIT
"""git over HTTPS: clone, push and fetch of 50 MB through git http-backend in a `cgi` pool, by both versions of HTTP, with bodies that come
in chunks, and compressed ones, behind a password."""
import os
import re
import subprocess

import pytest
from certs import self_signed
from weirlib import IS_ROOT, SLOW, USER, Weir, free_port

pytestmark = pytest.mark.nosan

# The example of docs/recipes.md.
SITE = """site git.test {
    listen https://127.0.0.1:TLSPORT; tls DIR/git.test
    pool   git
    auth   basic DIR/people
    body   { max 2G; stream STREAM }
}
pool git { cgi /usr/lib/git-core/git http-backend; env GIT_PROJECT_ROOT DIR/git; time { request 10m } USER }
"""
BACKEND = subprocess.run(["git", "--exec-path"], capture_output=True, text=True, check=True).stdout.strip() + "/git-http-backend"


class Git:
    """git as one person, who talks HTTP in this version; trace() is what curl told of the last command."""

    def __init__(self, weir, port, version, folder):
        self.weir, self.version, self.folder, self.url = weir, version, str(folder), f"https://alice:secret@git.test:{port}/shared.git"
        self.env = dict(os.environ, GIT_CONFIG_GLOBAL="/dev/null", GIT_CONFIG_SYSTEM="/dev/null", GIT_AUTHOR_NAME="a", GIT_AUTHOR_EMAIL="a@b",
                        GIT_COMMITTER_NAME="a", GIT_COMMITTER_EMAIL="a@b", GIT_TERMINAL_PROMPT="0", GIT_TRACE_CURL=self.folder + "/trace",
                        GIT_TRACE_CURL_NO_DATA="1", GIT_SSL_CAINFO=weir.dir + "/git.test.pem", HOME=self.folder)
        self.options = ["-c", f"http.version={version}", "-c", f"http.curloptResolve=git.test:{port}:127.0.0.1",
                        "-c", "http.postBuffer=200000", "-c", "core.fsync=none", "-c", "core.compression=0"]

    def __call__(self, *args, cwd=None, data=None, status=0):
        with open(self.folder + "/trace", "w"):
            pass
        r = subprocess.run(["git", *self.options, *args], cwd=cwd, capture_output=True, timeout=120 * SLOW, env=self.env, input=data)
        assert r.returncode == status, r.stderr.decode() + self.weir.log()
        return r.stdout.decode()

    def trace(self):
        with open(self.folder + "/trace") as f:
            return f.read()

    def refs(self, where):
        return sorted(self("for-each-ref", "--format=%(objectname) %(refname:lstrip=-1)", "refs/heads", "refs/tags", cwd=where).split("\n"))


def history(commits, megabytes):
    """What git fast-import reads: commits, each with a file of bytes that no compression makes smaller, and a tag."""
    size = megabytes * 1_000_000 // commits
    out = []
    for i in range(commits):
        out.append(b"blob\nmark :%d\ndata %d\n%s\n" % (2 * i + 1, size, os.urandom(size)))
        out.append(b"commit refs/heads/main\nmark :%d\ncommitter a <a@b> %d +0000\ndata 3\none\nM 100644 :%d f%d\n\n" % (2 * i + 2, 1700000000 + i, 2 * i + 1, i % 10))
        if i % 10 == 0:
            out.append(b"reset refs/tags/t%d\nfrom :%d\n\n" % (i, 2 * i + 2))
    return b"".join(out)


def apart(branch, commits):
    """A branch that shares nothing with others."""
    return b"".join(b"commit refs/heads/%s\ncommitter a <a@b> %d +0000\ndata 3\none\nM 100644 inline f\ndata 8\n%08d\n" % (branch.encode(), 1700000000 + i, i) for i in range(commits))


@pytest.mark.parametrize("version, stream", [("HTTP/1.1", "always"), ("HTTP/2", "no")])
def test_git_clones_pushes_and_fetches_fifty_megabytes(version, stream, tmp_path):
    port = free_port()

    def prepare(w):
        self_signed(w.dir + "/git.test.pem", w.dir + "/git.test.key", "git.test")
        secret = subprocess.run(["openssl", "passwd", "-6", "secret"], capture_output=True, text=True, check=True).stdout
        w.write("people", "alice:" + secret)
        subprocess.run(["git", "init", "-q", "--bare", "-b", "main", w.dir + "/git/shared.git"], check=True)
        subprocess.run(["git", "-C", w.dir + "/git/shared.git", "config", "core.fsync", "none"], check=True)
        w.write("git/shared.git/git-daemon-export-ok", "")
        if IS_ROOT:
            subprocess.run(["chown", "-R", "weir-demo", w.dir + "/git"], check=True)
    config = SITE.replace("TLSPORT", str(port)).replace("STREAM", stream).replace("USER", USER).replace("/usr/lib/git-core/git http-backend", BACKEND)
    with Weir(config, prepare=prepare) as w:
        git, work, again = Git(w, port, version, tmp_path), str(tmp_path / "work"), str(tmp_path / "again")
        shared = w.dir + "/git/shared.git"
        git("init", "-q", "-b", "main", work)
        git("fast-import", "--quiet", "--depth=0", cwd=work, data=history(400, 50))
        git("push", "--quiet", git.url, "main", "--tags", cwd=work)
        trace = git.trace()
        assert ("using HTTP/2" in trace or "HTTP/2 200" in trace) == (version == "HTTP/2")
        if version == "HTTP/1.1":
            assert re.search(r"POST /shared.git/git-receive-pack.*Transfer-Encoding: chunked", trace, re.S)
        subprocess.run(["git", "-c", "safe.directory=*", "fsck", "--strict", "--no-dangling"], cwd=shared, check=True, capture_output=True)
        at = git.refs(work)
        assert len(at) == 42

        git("clone", "--quiet", git.url, again)
        assert re.search(r"Send header: content-encoding: gzip", git.trace(), re.I)  # what it wants is a long list
        assert git.refs(again) == at
        git("fsck", "--connectivity-only", cwd=again)
        git("fast-import", "--quiet", cwd=again, data=apart("theirs", 50))
        git("push", "--quiet", git.url, "theirs", cwd=again)
        git("fetch", "--quiet", git.url, "theirs:theirs", cwd=work)
        assert git("rev-parse", "theirs", cwd=work) == git("rev-parse", "theirs", cwd=again)

        git.url = git.url.replace("secret", "guess")
        git("push", "--quiet", git.url, "theirs:mine", cwd=work, status=128)
        assert re.search(r"HTTP/\S+ 401", git.trace())
        git.url = git.url.replace("guess", "secret")
        assert sorted(re.findall(r"refs/heads/(\S+)", git("ls-remote", "--heads", git.url))) == ["main", "theirs"]
