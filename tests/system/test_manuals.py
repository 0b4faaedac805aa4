# SPDX-License-Identifier: MIT
"""The pages of section 3 and the public headers say the same: every function has one page, and its prototype there is the header's."""
import os
import re
import subprocess

import pytest
from weirlib import ROOT

pytestmark = pytest.mark.nosan

HEADERS = ["weir", "app", "client", "wire"]
PAGES = sorted(f for f in os.listdir(os.path.join(ROOT, "man")) if f.endswith(".3"))
SECTIONS = ["NAME", "SYNOPSIS", "DESCRIPTION", "RETURN VALUES", "EXAMPLES", "SEE ALSO", "STANDARDS"]


def read(*path):
    with open(os.path.join(ROOT, *path)) as f:
        return f.read()


def one_space(text):
    return re.sub(r"\s*([(),*])\s*", r"\1", " ".join(text.split()))


def of_headers():
    """Functions: name -> (header, prototype), and macros that stand for one: name -> (header, argument)."""
    functions, macros = {}, {}
    for h in HEADERS:
        text = re.sub(r"/\*.*?\*/", "", read("include/weir", h + ".h"), flags=re.S)
        for name, argument in re.findall(r"^#define (weir_\w+)\((\w+)\)", text, flags=re.M):
            macros[name] = (h, argument)
        text = re.sub(r"WEIR_PRINTF\([^)]*\)", "", re.sub(r"^#.*$", "", text, flags=re.M))
        for returns, name, arguments in re.findall(r"WEIR_API\s+(?:WEIR_CHECK\s+)?([^;]*?)\b(weir_\w+)\(([^;]*?)\)\s*;", text):
            assert name not in functions
            functions[name] = (h, one_space(f"{returns} {name}({arguments})"))
    return functions, macros


def names_of(page):
    name = re.search(r"^\.Sh NAME\n(.*?)^\.Sh ", read("man", page), flags=re.S | re.M).group(1)
    found = [line.split()[1] for line in name.splitlines() if line.startswith(".Nm ")]
    assert found[0] == page[:-2]
    return found


def synopsis_of(page):
    """name -> prototype; and name -> argument of what is given by .Fn alone."""
    text = re.search(r"^\.Sh SYNOPSIS\n(.*?)^\.Sh ", read("man", page), flags=re.S | re.M).group(1)
    prototypes, macros, returns, arguments, name = {}, {}, None, [], None
    for line in text.splitlines():
        macro, _, rest = line.partition(" ")
        rest = rest.strip('"')
        if macro == ".Ft":
            returns = rest
        elif macro == ".Fo":
            name, arguments = rest, []
        elif macro == ".Fa":
            arguments.append(rest)
        elif macro == ".Fc" and not returns.startswith("typedef"):
            assert name not in prototypes
            prototypes[name] = one_space(f"{returns} {name}({', '.join(arguments)})")
        elif macro == ".Fn":
            name, argument = rest.split(" ")
            macros[name] = argument.strip('"')
    return prototypes, macros


def test_headers_have_functions():
    functions, macros = of_headers()
    assert len(functions) > 100 and len(macros) == 5
    words = {w for h in HEADERS for w in re.findall(r"\b(weir_\w+)\(", re.sub(r"/\*.*?\*/", "", read("include/weir", h + ".h"), flags=re.S))}
    assert words - {"weir_app_handler"} == set(functions) | set(macros)  # the pattern above has missed none


def test_every_function_is_named_by_one_page():
    functions, macros = of_headers()
    named = [n for page in PAGES for n in names_of(page) if n != page[:-2]]
    assert sorted(named) == sorted([*functions, *macros])


@pytest.mark.parametrize("page", PAGES)
def test_prototypes_are_those_of_the_headers(page):
    functions, macros = of_headers()
    prototypes, given = synopsis_of(page)
    expected = [n for n in names_of(page) if n != page[:-2]]
    assert {n: p for n, p in prototypes.items()} == {n: functions[n][1] for n in expected if n in functions}
    assert given == {n: macros[n][1] for n in expected if n in macros}
    assert list(prototypes) == [n for n in expected if n in functions]
    includes = set(re.findall(r"^\.In weir/(\w+)\.h$", read("man", page).split(".Sh DESCRIPTION")[0], flags=re.M))
    assert {functions[n][0] for n in expected if n in functions} <= includes


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_whole(page):
    text = read("man", page)
    found = re.findall(r"^\.Sh (.*)$", text, flags=re.M)
    assert [s for s in found if s in SECTIONS] == SECTIONS
    assert page == "libweir.3" or ("OWNERSHIP" in found and "THREADS" in found)
    lint = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", os.path.join(ROOT, "man", page)], capture_output=True, text=True)
    assert lint.returncode == 0 and not lint.stdout, lint.stdout
    functions, macros = of_headers()
    body = text.split(".Sh DESCRIPTION")[1]
    missing = [n for n in names_of(page) if not n.endswith("_sized") and n != page[:-2] and n not in body]
    assert not missing  # each is explained, not only listed


@pytest.mark.parametrize("page", PAGES)
def test_what_it_refers_to_exists(page):
    known = {n for p in PAGES for n in names_of(p)}
    for name, section in re.findall(r"^\.Xr (\S+) (\d)", read("man", page), flags=re.M):
        assert name in known or not name.startswith("weir_"), name
        assert section != "3" or name in known or name == "free"


@pytest.mark.parametrize("page", PAGES)
def test_members_of_structs_and_constants_exist(page):
    source = "".join(read("include/weir", h + ".h") for h in HEADERS)
    for line in re.findall(r"^\.(?:It )?(?:Fa|Dv) (.*)$", read("man", page), flags=re.M):
        for word in re.findall(r"\b(?:WEIR_\w+|[a-z]+_[a-z_]+)\b", line):
            assert re.search(rf"\b{word}\b", source), word
