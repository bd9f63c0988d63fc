"""docs/configuration.md has every key and variable that the program reads, and no other."""

import re

from sources import ROOT, finish

PAGE = "docs/configuration.md"
MODELS = "motley/models/"
READS = re.compile(
    r"values\.(?:required|optional)<[\w:<> ]+>\(\s*\"(\w+)\""
    r"|values\.(?:choice|know|has)\(\s*\"(\w+)\""
    r"|(?:expect|refuse)\(values, \"(\w+)\""
)
LISTS = re.compile(r"(?:kInformative\[\] =|for \(const char\* key :)\s*\{([^}]*)\}")

# Heading of the page, and what reads the keys.
SECTIONS = [
    ("### `data`", ["motley/train/run_config.cc:read_data"]),
    ("### `train`", ["motley/train/run_config.cc:read_train"]),
    (
        '### `"model_type": "motley"`',
        [MODELS + "motley/motley_config.cc", MODELS + "motley/motley_moe_config.cc", MODELS + "decoder/decoder_config.cc"],
    ),
    (
        '### `"model_type": "MoE++"`',
        [MODELS + "moe_plus_plus/moe_plus_plus_config.cc", MODELS + "decoder/decoder_config.cc"],
    ),
]


def keys_read(place):
    path, _, function = place.partition(":")
    text = (ROOT / path).read_text()
    if function:
        begin = text.index(f" {function}(")
        text = text[begin : text.index("\n}\n", begin)]
    keys = {key for match in READS.findall(text) for key in match if key}
    for names in LISTS.findall(text):
        keys |= set(re.findall(r'"(\w+)"', names))
    return keys


def keys_listed(page, heading):
    level = len(heading.split()[0])
    rest = page[page.index(heading + "\n") + len(heading) :]
    section = re.split(rf"^#{{1,{level}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]
    cells = re.findall(r"^\| (`[^|]*`) \|", section, re.MULTILINE)
    return [key for cell in cells for key in re.findall(r"`(\w+)`", cell)]


def compare(what, read, listed, problems):
    problems += [f"{PAGE}: {what}: {key} is read, but not listed" for key in sorted(read - set(listed))]
    problems += [f"{PAGE}: {what}: {key} is listed, but nothing reads it" for key in sorted(set(listed) - read)]
    problems += [f"{PAGE}: {what}: {key} is listed twice" for key in sorted({k for k in listed if listed.count(k) > 1})]


def main():
    page, problems, count = (ROOT / PAGE).read_text(), [], 0
    for heading, places in SECTIONS:
        read = set().union(*map(keys_read, places))
        compare(heading.strip("# "), read, keys_listed(page, heading), problems)
        count += len(read)
    variables = set(re.findall(r'"(MOTLEY_\w+)"', (ROOT / "motley/base/env.cc").read_text()))
    compare("variables", variables, keys_listed(page, "## Environment variables"), problems)
    finish("configuration keys", problems, f"{count} keys, {len(variables)} variables")


main()
