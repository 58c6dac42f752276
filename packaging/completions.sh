#!/bin/bash
# packaging/completions.sh FOLDER: each shell loads its completions from there, as `cargo run --example manual -- FOLDER` writes them, and
# is asked what it would offer. bash, zsh by compinit at a terminal of its own, fish.
set -euo pipefail
FOLDER=$(readlink -f "$1")
cd "$(dirname "$(readlink -f "$0")")/.."
. tests/servers/need.sh
need zsh fish timeout
WORK=$(mktemp -d "${TMPDIR:-/var/tmp}/pgsluice-completions.XXXXXX")
trap 'rm -rf "$WORK"' EXIT

ask_bash() { # LINE: what it offers for the last word
  # shellcheck disable=SC2016
  bash --norc --noprofile -c '
    . "$1"; read -ra COMP_WORDS <<<"$2"; [[ $2 != *" " ]] || COMP_WORDS+=("")
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMP_LINE=$2 COMP_POINT=${#2} COMPREPLY=()
    said=$(complete -p pgsluice); function=${said##*-F }; function=${function%% *}
    "$function" pgsluice "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
    printf "%s\n" "${COMPREPLY[@]}"' bash "$FOLDER/pgsluice.bash" "$1"
}
ask_fish() { # LINE
  # shellcheck disable=SC2016
  HOME=$WORK XDG_CONFIG_HOME=$WORK XDG_DATA_HOME=$WORK fish --no-config -c 'source $argv[1]; complete -C $argv[2]' "$FOLDER/pgsluice.fish" "$1" | cut -f1
}
ask_zsh() { # LINE: typed at a zsh that completes; what is added is told by a compadd that passes it on
  : >"$WORK/offered"
  cat >"$WORK/.zshrc" <<'Z'
PS1= PROMPT_SP= fpath=($COMPLETIONS $fpath)
autoload -Uz compinit && compinit -u -D || print failed >>$OFFERED
compadd() { local -a found; builtin compadd -O found "$@"; print -rl -- $found >>$OFFERED; builtin compadd "$@" }
asked() { print -- end >>$OFFERED }
compprefuncs=() comppostfuncs=(asked)
LISTMAX=1000
bindkey '^I' complete-word
print -- ready >>$OFFERED
Z
  cat >"$WORK/ask" <<'Z'
zmodload zsh/zpty
zpty shell zsh -d -i
until grep -qx ready $OFFERED; do sleep 0.1; done
zpty -w -n shell "$1"$'\t'
until grep -qx end $OFFERED; do zpty -r -t shell >/dev/null || sleep 0.1; done
zpty -d shell
Z
  OFFERED=$WORK/offered COMPLETIONS=$FOLDER ZDOTDIR=$WORK TERM=dumb timeout 60 zsh -f "$WORK/ask" "$1" ||
    { cat "$WORK/offered" >&2; die "zsh does not answer"; }
  sed '/^ready$/d; /^end$/d' "$WORK/offered" | sort -u
}
offers() { # SHELL LINE WORD...: all of these
  local said; said=$("ask_$1" "$2")
  for word in "${@:3}"; do grep -qxF -e "$word" <<<"$said" || die "$1 does not offer $word for '$2', but: ${said//$'\n'/ }"; done
}
offers_no() { # SHELL LINE WORD
  ! grep -qxF -e "$3" <<<"$("ask_$1" "$2")" || die "$1 offers $3 for '$2'"
}
for shell in bash zsh fish; do
  offers $shell "pgsluice " run tail config version
  offers $shell "pgsluice r" run
  offers_no $shell "pgsluice r" tail
  offers $shell "pgsluice run --" --config --set --help
  offers $shell "pgsluice tail --c" --config
  echo "$shell: completes commands and options"
done
