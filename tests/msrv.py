#!/usr/bin/env python3
"""Finds dependencies in Cargo.lock that need a newer Rust than the crates of this workspace that depend on them declare.

Counts what a user compiles: dependencies of dependencies, on every system and with every feature, but none for tests.
"""

import json
import subprocess
import sys


def version(text):
    return tuple(int(number) for number in text.split("-")[0].split(".")) + (0,) * (2 - text.count("."))


metadata = json.loads(
    subprocess.check_output(["cargo", "metadata", "--locked", "--all-features", "--format-version=1"])
)
packages = {package["id"]: package for package in metadata["packages"]}
nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}


def compiled_with(crate):
    """The ids of everything that is compiled with a crate."""
    found, open_ids = set(), [crate]
    while open_ids:
        for dependency in nodes[open_ids.pop()]["deps"]:
            is_for_users = any(kind["kind"] in (None, "build") for kind in dependency["dep_kinds"])
            if is_for_users and dependency["pkg"] not in found:
                found.add(dependency["pkg"])
                open_ids.append(dependency["pkg"])
    return found


too_new, silent, checked = [], set(), 0
for crate in (packages[member] for member in metadata["workspace_members"]):
    if crate["publish"] == []:
        continue
    declared = crate["rust_version"]
    if not declared:
        too_new.append(f"{crate['name']} declares no rust-version")
        continue
    for package in (packages[dependency] for dependency in compiled_with(crate["id"])):
        needed, checked = package["rust_version"], checked + 1
        if not needed:
            silent.add(package["name"])
        elif version(needed) > version(declared):
            too_new.append(f"{package['name']} {package['version']} needs Rust {needed}, {crate['name']} declares {declared}")

print("\n".join(sorted(too_new)) or f"no dependency needs a newer Rust: {checked} looked at, {len(silent)} declare none")
sys.exit(bool(too_new))
