"""Links between documents lead somewhere, and so do the paths that documents name in `code`."""

import re

from sources import ROOT, all_files, finish

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
TOP = {"motley", "apps", "tests", "docs", "scripts", "cmake", "configs", "benchmarks", "examples"}
PATH = re.compile(r"[\w./+-]+/[\w.+-]*")


def main():
    problems, checked = [], 0
    for path in (p for p in all_files() if p.suffix == ".md"):
        text = FENCE.sub("", (ROOT / path).read_text())
        for target in LINK.findall(text):
            if re.match(r"[a-z]+:", target) or target.startswith("#"):
                continue
            checked += 1
            if not (ROOT / path.parent / target.split("#")[0]).exists():
                problems.append(f"{path}: the link {target} leads nowhere")
        for code in CODE.findall(text):
            if not PATH.fullmatch(code) or code.split("/")[0] not in TOP:
                continue
            checked += 1
            if not (ROOT / code).exists():
                problems.append(f"{path}: there is no {code}")
    finish("links", problems, f"{checked} links and paths")


main()
