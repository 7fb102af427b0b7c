#!/usr/bin/env python3
"""Looks into the packages as they would be published.

    tests/packages.py crates FILE...   what a registry demands of a crate, and that nothing is in it by mistake
    tests/packages.py npm              packs client/, installs the archive without a network and imports it
"""

import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib

LICENCES = {"LICENSE-APACHE", "LICENSE-MIT"}
EXPECTED = LICENCES | {"README.md", "Cargo.toml"}
# What Cargo adds, and what else may be there. Tests and benches use crates that are not published.
ALLOWED = EXPECTED | {"Cargo.toml.orig", "Cargo.lock", ".cargo_vcs_info.json", "CHANGELOG.md"}
MAX_BYTES = 1 << 20


def contents(archive):
    """The files of an archive, with their bytes, without the folder that they are in."""
    with tarfile.open(archive) as tar:
        files = {member.name.partition("/")[2]: tar.extractfile(member).read() for member in tar if member.isfile()}
    return files


def metadata_faults(package):
    for key in ("description", "license", "readme", "documentation", "rust-version"):
        if not package.get(key):
            yield f"no {key}"
    if len(package.get("description", "")) > 200:
        yield "a description of more than 200 letters"
    keywords = package.get("keywords", [])
    if not 1 <= len(keywords) <= 5:
        yield "not one to five keywords"
    yield from (f"keyword {word}" for word in keywords if not re.fullmatch(r"[A-Za-z0-9][\w+-]{0,19}", word, re.A))
    if not 1 <= len(package.get("categories", [])) <= 5:
        yield "not one to five categories"


def crate_faults(archive):
    files = contents(archive)
    manifest = tomllib.loads(files["Cargo.toml"].decode())
    yield from metadata_faults(manifest["package"])
    yield from (f"{name} is missing" for name in sorted(EXPECTED - files.keys()))
    is_odd = lambda name: name not in ALLOWED and not re.fullmatch(r"src/.+|examples/\w+\.rs", name)
    yield from (f"{name} should not be in it" for name in sorted(files) if is_odd(name))
    if os.path.getsize(archive) > MAX_BYTES:
        yield f"{os.path.getsize(archive)} bytes, more than {MAX_BYTES}"
    version = manifest["package"]["version"]
    for name, dependency in manifest.get("dependencies", {}).items():
        if name.startswith("tower-channels") and dependency["version"] != version:
            yield f"{name} {dependency['version']} beside version {version}"


def crates(archives):
    for archive in archives:
        yield from (f"{os.path.basename(archive)}: {fault}" for fault in crate_faults(archive))


def imports(folder, name, found):
    """A module and all that it imports from its folder."""
    if name not in found:
        found.add(name)
        text = open(os.path.join(folder, name), encoding="utf-8").read()
        for imported in re.findall(r"""(?:from|import)\s*\(?\s*["']\./([^"']+)["']""", text):
            imports(folder, imported, found)
    return found


IMPORT = """
import { keepSession } from "tower-channels-client";
const { params, encode, decode } = keepSession({ params: { token: "t" } });
if ([params, encode, decode].some((it) => typeof it !== "function")) throw new Error("keepSession returns no options");
"""


def npm_faults(files):
    package = json.loads(files["package.json"])
    modules = imports("client", package["exports"]["."]["default"].removeprefix("./"), set())
    wanted = modules | LICENCES | {"package.json", "README.md", package["types"].removeprefix("./")}
    yield from (f"{name} is missing" for name in sorted(wanted - files.keys()))
    yield from (f"{name} should not be in it" for name in sorted(files.keys() - wanted))
    for name in sorted(LICENCES & files.keys()):
        if files[name] != open(name, "rb").read():
            yield f"{name} is not that of the project"
    version = tomllib.load(open("Cargo.toml", "rb"))["workspace"]["package"]["version"]
    if package["version"] != version:
        yield f"version {package['version']}, and the crates have {version}"


def npm():
    with tempfile.TemporaryDirectory() as folder:
        # The lines before the last are those of scripts.
        pack = ["npm", "pack", "./client", "--pack-destination", folder, "--silent"]
        archive = subprocess.check_output(pack, text=True).split()[-1]
        yield from (f"{archive}: {fault}" for fault in npm_faults(contents(os.path.join(folder, archive))))
        with open(os.path.join(folder, "package.json"), "w", encoding="utf-8") as manifest:
            json.dump({"private": True}, manifest)
        # Without its peer, phoenix, which it does not import.
        options = ["--offline", "--legacy-peer-deps", "--no-audit", "--no-fund", "--silent"]
        for command in (["npm", "install", *options, f"./{archive}"], ["node", "--input-type=module", "--eval", IMPORT]):
            if subprocess.run(command, cwd=folder).returncode:
                yield f"{archive}: {command[0]} fails, as above"
                return


faults = list(npm() if sys.argv[1] == "npm" else crates(sys.argv[2:]))
print("\n".join(faults) or "nothing is missing, and nothing is too much")
sys.exit(bool(faults))
