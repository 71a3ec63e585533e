# Shared by scripts/*.sh and data/*/get_*.sh, which source it; it is not run by itself.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)

say() { printf '%s\n' "$*"; }

# Print what failed and the remedy, and stop with exit code 1.
die() {
  printf '%s: %s\n' "$(basename "$0")" "$*" >&2
  exit 1
}

# need PATH REMEDY: stop unless PATH is there, a folder or a file that holds something.
need() {
  [ -d "$1" ] || [ -s "$1" ] || die "$(short "$1") is missing or empty; $2"
}

# begin, then need_new FILE REMEDY: stop unless FILE has been written since.
begin() {
  begun=$(mktemp)
  trap 'rm -f "$begun"' EXIT
}

need_new() {
  need "$1" "$2"
  [ "$1" -nt "$begun" ] || die "$(short "$1") is of an earlier run; $2"
}

# A path as the user knows it: relative to the repository's root where it lies in it.
short() { printf '%s' "${1#"$root"/}"; }

# run COMMAND...: show a command, then run it.
run() {
  printf '+ %s\n' "$*"
  "$@"
}

# Sets the array `caffecli` to the command: $CAFFECLI, else the one on PATH, else the repository's own .venv.
find_caffecli() {
  if [ -n "${CAFFECLI:-}" ]; then
    if [ -x "$CAFFECLI" ] || command -v "$CAFFECLI" >/dev/null; then
      caffecli=("$CAFFECLI")
    else
      read -r -a caffecli <<<"$CAFFECLI" # several words: CAFFECLI="python -m caffecli"
      command -v "${caffecli[0]}" >/dev/null || die "CAFFECLI=$CAFFECLI cannot be run; unset it or give it the path of caffecli"
    fi
  elif command -v caffecli >/dev/null; then
    caffecli=(caffecli)
  elif [ -x "$root/.venv/bin/caffecli" ]; then
    caffecli=("$root/.venv/bin/caffecli")
  else
    die "caffecli is not installed; run 'make -C $root .venv', or set CAFFECLI to its path"
  fi
}

# has_sum FILE SHA256
has_sum() {
  [ "$(sha256 <"$1")" = "$2" ]
}

# The SHA-256 sum of the standard input.
sha256() {
  if command -v sha256sum >/dev/null; then sha256sum; else shasum -a 256; fi | cut -d ' ' -f 1
}

# get URL PART: fetch a URL to the file PART, going on behind what PART already holds. On a terminal it shows how far it
# is.
get() {
  local show
  if command -v curl >/dev/null; then
    if [ -t 2 ]; then show=--progress-bar; else show=--no-progress-meter; fi
    curl --fail --location "$show" --connect-timeout 20 --speed-limit 1 --speed-time 60 --continue-at - --output "$2" "$1"
  else
    if [ -t 2 ]; then show=--progress=bar; else show=--no-verbose; fi
    wget "$show" --tries=1 --timeout=60 --continue --output-document="$2" "$1"
  fi
}

# download FILE CHECK URL...: fetch FILE from the first URL that gives one that passes CHECK, a command run with the
# file's path as its last argument. What a broken connection left is kept beside it as FILE.part, and the next try goes
# on from there.
download() {
  local file=$1 check=$2 part="$1.part" url tried=""
  shift 2
  command -v curl >/dev/null || command -v wget >/dev/null || die "neither curl nor wget is installed; install one of them"
  for url in "$@"; do
    say "Downloading $url"
    for _ in 1 2; do
      local before=0 after=0 error=""
      [ -f "$part" ] && before=$(wc -c <"$part")
      # a whole file that was left behind needs no server
      if [ "$before" -gt 0 ] && $check "$part" 2>/dev/null; then break 2; fi
      if [ -t 2 ]; then
        get "$url" "$part" || error="failed, as said above"
      else
        error=$(get "$url" "$part" 2>&1) && error="" || error=${error:-failed}
      fi
      [ -f "$part" ] && after=$(wc -c <"$part")
      if [ "$after" -gt 0 ] && $check "$part" 2>/dev/null; then break 2; fi
      if [ -z "$error" ]; then
        error="what came ($after bytes) is not the expected file"
        rm -f "$part"
      elif [ "$before" -gt 0 ] && [ "$after" -le "$before" ]; then
        rm -f "$part" # the server cannot go on where the last try stopped
      fi
      [ "$before" -gt 0 ] || break # only what was begun before is worth a second, fresh try
    done
    tried="$tried; $url: $(printf '%s' "$error" | tail -n 1)"
  done
  if ! { [ -s "$part" ] && $check "$part" 2>/dev/null; }; then
    die "could not get $(basename "$file")$tried. Run this again (it goes on where it stopped), or put the file at $file by hand"
  fi
  mv "$part" "$file"
}
