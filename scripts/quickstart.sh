#!/usr/bin/env bash
# From a fresh machine to a trained model: installs what is missing, builds the `motley` program, trains a small
# MoE++ language model on the King James Bible (a Debian package carries it), evaluates it, lets it write.
# Run it again and it goes on where it stopped; a finished model is not trained again.
set -euo pipefail
# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

if [ $# -gt 0 ]; then
  printf 'usage: scripts/quickstart.sh\n\nTORCH_ROOT names a torch package or libtorch to use; without it torch comes into build/venv.\n'
  case $1 in --help | -h) exit 0 ;; *) exit 2 ;; esac
fi

run=$root/runs/quickstart
text=$root/build/quickstart/king_james.txt
held_out=$root/build/quickstart/king_james_held_out.txt
held_out_verses=1500 # of 31102
motley=$root/build/cpu/apps/motley

# One verse a line, without their numbers; the last ones are kept from training.
write_text() {
  [ -s "$text" ] && [ -s "$held_out" ] && return
  say "writing the text to ${text#"$root"/}"
  mkdir -p "$(dirname "$text")"
  bible -f 'gen1:1-rev22:21' 2> /dev/null < /dev/null | sed -E 's/^[0-9A-Za-z]+:[0-9]+ +//' > "$text.whole" ||
    die "the program bible failed"
  local size
  size=$(wc -c < "$text.whole")
  [ "$size" -gt 1000000 ] || die "expected over 1 MB of text from the program bible, found $size bytes"
  tail -n "$held_out_verses" "$text.whole" > "$held_out"
  head -n "-$held_out_verses" "$text.whole" > "$text.part"
  mv "$text.part" "$text"
  rm "$text.whole"
}

install_build_tools
install_packages bible-kjv
install_torch
configure cpu
build cpu motley
write_text

say "training: motley train configs/quickstart.json"
"$motley" train "$root/configs/quickstart.json" --data "$text" --out "$run"
say "evaluating on verses that training has not seen: motley eval"
"$motley" eval "$run/model" --data "$held_out" --window 256 --max-windows 200
say "generating: motley generate"
"$motley" generate "$run/model" --prompt "And it came to pass" --max-new-tokens 230 --temperature 0.7 --seed 1
echo
[ -s "$run/report.html" ] || die "expected a report in $run/report.html, found none"
say "done. The model is in ${run#"$root"/}/model, the report in ${run#"$root"/}/report.html (open it in a browser)."
say "try: build/cpu/apps/motley generate runs/quickstart/model --prompt 'In the beginning' --max-new-tokens 200 --temperature 0.7"
