"""A folder includes only folders below it in the ladder of docs/architecture.md; includes start at the root."""

import re

from sources import ROOT, cpp_files, finish

# What each folder may use directly; what those use comes with them.
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


def main():
    problems = []
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
