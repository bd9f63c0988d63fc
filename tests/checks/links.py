"""Links between documents lead somewhere, and so do the paths that documents name in `code`; each row of
docs/papers.md names a file and what to look for in it."""

import re

from sources import ROOT, all_files, finish

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
TOP = {"motley", "apps", "tests", "docs", "scripts", "cmake", "configs", "benchmarks", "examples"}
PATH = re.compile(r"[\w./+-]+/[\w.+-]*")


def check_papers(problems):
    rows = [line for line in (ROOT / "docs/papers.md").read_text().splitlines() if line.startswith("| ")][1:]
    for row in rows:
        _, _, idea, here, _ = row.split("|")
        codes = CODE.findall(here)
        files = [ROOT / code for code in codes if PATH.fullmatch(code) and (ROOT / code).is_file()]
        names = [code for code in codes if not PATH.fullmatch(code)]
        if not files or not names:
            problems.append(f"docs/papers.md:{idea}: expected a file and a name in it, found {codes}")
        text = "".join(path.read_text() for path in files)
        problems += [f"docs/papers.md:{idea}: none of its files has {name}" for name in names if name not in text]
    return len(rows)


def main():
    problems = []
    checked = check_papers(problems)
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
    finish("links", problems, f"{checked} links, paths and rows")


main()
