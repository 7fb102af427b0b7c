#!/usr/bin/env python3
"""Finds dead links: in the Markdown files of the repository, and in the documentation that rustdoc wrote.

    tests/links.py markdown     relative links and their anchors, and the pages of docs/ that its index leaves out
    tests/links.py rustdoc DIR  relative links between the pages of this workspace's crates
"""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from urllib.parse import unquote, urldefrag


# The documentation of blanket implementations of tracing and futures, which rustdoc repeats on every page, has dead links
# of its own.
FOREIGN = {
    "dispatcher#setting-the-default-subscriber",
    "futures_core::future::TryFuture",
    "TryFuture::Ok",
    "TryFuture::Error",
    "futures_core::stream::Stream",
    "Stream::poll_next",
}


def is_relative(link):
    return not re.match(r"[a-z][a-z0-9+.-]*:|//", link) and link not in FOREIGN


def anchors(text):
    """The ids that a Markdown renderer gives to headings."""
    text = re.sub(r"```.*?```", "", text, flags=re.S)
    titles = re.findall(r"^#+ +(.*?) *$", text, flags=re.M)
    plain = (re.sub(r"[^\w\- ]", "", title.replace("`", "").lower()) for title in titles)
    return {title.replace(" ", "-") for title in plain}


INDEX = "docs/README.md"


def markdown():
    files = subprocess.check_output(["git", "ls-files", "-co", "--exclude-standard", "*.md"], text=True).split()
    pages = {path for path in files if path.startswith("docs/") and path != INDEX}
    for path in files:
        text = open(path, encoding="utf-8").read()
        prose = re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.S)
        links = re.findall(r"\]\(([^)\s]+)\)", prose) + re.findall(r"^\[[^\]]+\]: *(\S+)", prose, flags=re.M)
        for link in filter(is_relative, links):
            target, anchor = urldefrag(link)
            target = os.path.normpath(os.path.join(os.path.dirname(path), unquote(target))) if target else path
            if path == INDEX:
                pages.discard(target)
            if not os.path.exists(target):
                yield f"{path}: {link}"
            elif anchor and target.endswith(".md") and anchor not in anchors(open(target, encoding="utf-8").read()):
                yield f"{path}: {link}: no such heading"
    yield from (f"{INDEX}: does not lead to {page}" for page in pages)


class Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.links = []

    def handle_starttag(self, tag, attrs):
        self.links += [value for name, value in attrs if tag == "a" and name == "href" and value]


def rustdoc(root):
    for crate in ("tower_channels", "tower_channels_transports"):
        for folder, _, names in os.walk(os.path.join(root, crate)):
            for name in (name for name in names if name.endswith(".html")):
                page, found = os.path.join(folder, name), Links()
                found.feed(open(page, encoding="utf-8").read())
                for link in filter(is_relative, found.links):
                    target = unquote(urldefrag(link)[0])
                    if target and not os.path.exists(os.path.normpath(os.path.join(folder, target))):
                        yield f"{page}: {link}"


dead = sorted(set(rustdoc(sys.argv[2]) if sys.argv[1] == "rustdoc" else markdown()))
print("\n".join(dead) or "no dead links")
sys.exit(bool(dead))
