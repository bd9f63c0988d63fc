"""A folder includes only folders below it in the ladder, which docs/architecture.md shows and CMake links by; and
includes start at the root."""

import re

from sources import ROOT, cpp_files, finish

# What each folder may use directly; what those use comes with them. placement and serve are still to come.
USES = {
    "base": [],
    "kernels": ["base"],
    "ops": ["kernels"],
    "routing": ["ops"],
    "nn": ["ops"],
    "comm": ["base"],
    "io": ["base"],
    "text": ["base"],
    "placement": ["base"],
    "experts": ["ops", "io", "comm"],
    "parallel": ["routing", "comm", "placement", "experts"],
    "layers": ["parallel", "nn"],
    "models": ["layers", "text"],
    "infer": ["models"],
    "train": ["infer"],
    "serve": ["infer"],
    "apps": ["train", "serve"],
}
WITHOUT_TORCH = {"base", "kernels"}
INCLUDE = re.compile(r'^\s*#\s*include\s+(["<])([^">]+)[">]')


def allowed(folder):
    found = {folder}
    for used in USES[folder]:
        found |= allowed(used)
    return found


def check_page(problems):
    """The ladder as docs/architecture.md shows it: the same folders in the same order."""
    page = (ROOT / "docs/architecture.md").read_text()
    shown = [name for row in re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", page, re.MULTILINE) for name in row.split("`")[1::2]]
    ladder = [name for name in USES if name in shown]
    problems += [f"docs/architecture.md: no row for {name}" for name in USES if name not in shown and (ROOT / "motley" / name).exists()]
    if ladder != [name for name in shown if name in USES]:
        problems.append(f"docs/architecture.md: expected the folders in the order {ladder}, found {shown}")


def check_links(problems):
    """CMake links a folder to folders below it, and to all that its files include."""
    links = {}
    for folder in (name for name in USES if (ROOT / "motley" / name).exists()):
        text = (ROOT / "motley" / folder / "CMakeLists.txt").read_text()
        links[folder] = {name for name in re.findall(r"motley::(\w+)", text) if name in USES}
        for name in sorted(links[folder] - allowed(folder)):
            problems.append(f"motley/{folder}/CMakeLists.txt: {folder} is below {name} and must not link it")
    for path in (p for p in cpp_files() if p.parts[0] == "motley" and p.parts[1] in links):
        folder = path.parts[1]
        reached, todo = {folder}, [folder]
        while todo:
            new = links.get(todo.pop(), set()) - reached
            reached |= new
            todo += new
        for target in re.findall(r'^#include "motley/(\w+)/', (ROOT / path).read_text(), re.MULTILINE):
            if target not in reached:
                problems.append(f"{path}: motley_{folder} includes {target}, but CMake does not link it")


def main():
    problems = []
    check_page(problems)
    check_links(problems)
    files = [p for p in cpp_files() if p.parts[0] in ("motley", "apps", "tests", "benchmarks")]
    for path in files:
        folder = path.parts[1] if path.parts[0] == "motley" else path.parts[0]
        if path.parts[0] == "motley" and folder not in USES:
            problems.append(f"{path}: expected a folder of the ladder, found motley/{folder}")
            continue
        for number, line in enumerate((ROOT / path).read_text().splitlines(), 1):
            match = INCLUDE.match(line)
            if not match:
                continue
            quote, target = match.groups()
            parts = target.split("/")
            where = f"{path}:{number}"
            generated = len(parts) == 1 and target.startswith("motley_")  # written by CMake into the build folder
            if quote == '"' and not generated and parts[0] not in ("motley", "apps", "tests", "benchmarks"):
                problems.append(f'{where}: expected an include from the root, found "{target}"')
            if folder in USES and parts[0] == "motley" and parts[1] not in allowed(folder):
                problems.append(f"{where}: {folder} is below {parts[1]} and must not include {target}")
            if folder in USES and folder != "apps" and parts[0] in ("apps", "tests", "benchmarks"):
                problems.append(f"{where}: a library must not include {target}")
            if folder in WITHOUT_TORCH and parts[0] in ("ATen", "c10", "torch"):
                problems.append(f"{where}: {folder} is free of torch but includes {target}")
    finish("include order", problems, f"{len(files)} files")


main()
