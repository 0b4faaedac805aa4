# SPDX-License-Identifier: MIT
"""Other people's FastCGI programs behind Weir's gateway. Weir runs each twice: as a pool of its own, where most checks ask it, and as
one with `listen`, which is reached again through the tap."""
import contextlib
import os
import shutil
import subprocess

from chain import Chain
from tap import Tap
from weirlib import IS_ROOT, ROOT, USER, Weir, wait_for

PROGRAMS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "programs")
BUILT = os.path.join(os.environ.get("WEIR_BUILD", os.path.join(ROOT, "build-gcc")), "tests/system/interop")
NPM = os.path.join(ROOT, ".cache/npm/node_modules")

SITE = """site a { listen http://127.0.0.1:PORT; root public; WHAT own; route /tap/ { WHAT tap }; ROLES }
pool own { PROGRAM; USER KIND keep KEEP }
pool listening { PROGRAM; USER KIND listen unix:DIR/run/keep-app.sock mode 0666 }
pool tap { connect unix:DIR/tap.sock { workers 1; requests REQUESTS }; keep KEEP; multiplex MULTIPLEX }
"""


ROLES = "route /guarded/ { authorizer own; pool own }; route *.data { filter own }"


def compiled(source, *command, env=None):
    """A program of that source in the build folder, made anew when its source is newer."""
    to = os.path.join(BUILT, os.path.splitext(source)[0])
    source = os.path.join(PROGRAMS, source)
    if not os.path.exists(to) or os.path.getmtime(to) < os.path.getmtime(source):
        os.makedirs(BUILT, exist_ok=True)
        subprocess.run([word.replace("SOURCE", source).replace("TO", to) for word in command], check=True, env={**os.environ, **(env or {})})
    return to


def copied(*names):
    """Puts programs of the folder into Weir's own, where its users can read them."""
    def prepare(w):
        for name in names:
            with open(os.path.join(PROGRAMS, name)) as f:
                w.write(name, f.read())
    return prepare


def c_program(w):
    shutil.copy(compiled("libfcgi.c", "gcc", "-O1", "-o", "TO", "SOURCE", "-lfcgi"), w.dir)


def go_program(w):
    env = {"GOCACHE": os.path.join(BUILT, "go-cache"), "GO111MODULE": "off", "GOPATH": BUILT}
    shutil.copy(compiled("matrix.go", "go", "build", "-o", "TO", "SOURCE", env=env), w.dir)


def node_program(w):
    copied("matrix.js")(w)
    shutil.copytree(NPM, os.path.join(w.dir, "node_modules"))


def php_script(w):
    for folder in ("public", "public/tap"):
        with open(os.path.join(PROGRAMS, "matrix.php")) as f:
            w.write(folder + "/matrix.php", f.read())


def prepared(put):
    """The program where Weir runs, and a folder for sockets that nobody else can take over."""
    def prepare(w):
        put(w)
        if IS_ROOT:
            os.chown(w.run_dir, 0, 0)
        os.chmod(w.run_dir, 0o1777)
    return prepare


def takes_roles(program, own):
    """The gateway asks it as authorizer and filter, too: PHP and what is reached through the tap alone know no roles."""
    return own and program.startswith("run")


def config(program, kind, multiplexes, keeps, own):
    words = {"PROGRAM": program, "USER": USER, "KIND": kind, "KEEP": "yes" if keeps else "no",
             "REQUESTS": "4" if multiplexes else "1", "MULTIPLEX": "yes" if multiplexes else "no",
             "WHAT": "php" if program.startswith("php") else "pool", "ROLES": ROLES if takes_roles(program, own) else ""}
    text = SITE if own else SITE.replace("pool own { PROGRAM; USER KIND keep KEEP }\n", "").replace("WHAT own; ", "")
    for word, value in words.items():
        text = text.replace(word, value)
    return text


@contextlib.contextmanager
def behind(program, put, kind="", multiplexes=False, keeps=True, own=True):
    with Weir(config(program, kind, multiplexes, keeps, own), prepare=prepared(put), program="threads 1") as w:
        app, name = w.run_dir + "/keep-app.sock", "/matrix.php" if program.startswith("php") else "/matrix"
        asked = "own" if own else "tap"
        wait_for(lambda: w.pids("listening"))
        with Tap(w.dir + "/tap.sock", app) as t:
            yield Chain(w.port, name if own else "/tap" + name, t, w.log, w.run_dir, tap_path="/tap" + name, raw=app,
                        guarded="/guarded/x" if takes_roles(program, own) else None, filtered=("/x.data", w.public + "/x.data") if takes_roles(program, own) else None,
                        busy=lambda: t.running() or any(p["busy"] for p in w.pool(asked).get("processes", ())))
