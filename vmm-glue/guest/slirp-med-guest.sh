#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
#
# slirp-med-guest.sh: what the program slirp-med-guest does, for a guest that has a POSIX shell and the tools of busybox instead: fetch the
# certificate of this guest's slirp-med workspace from the host, and install it. The same options, files, report and exit statuses;
# slirp-med-guest(1) is the manual of both. A change here is a change there (fetch.c, pem.c, install.c, report.c have the reasons), and
# tests/unit/guest puts both through the same.
#
# A shell cannot open a vsock itself: socat, slirp-med-guest or an nc with --vsock does it when there is one.
#
# Needs: awk base64 cat chmod cmp cp dd env fold head ls mkdir mktemp mv od readlink rm rmdir sed sha256sum sleep tee timeout tr wc.
set -uf
LC_ALL=C
export LC_ALL
umask 022

VERSION=@VERSION@
NL='
'
CR=$(printf '\r')
BEGIN='-----BEGIN CERTIFICATE-----'
END='-----END CERTIFICATE-----'
PEM_MAX=65536
BUNDLE_MAX=4194304
TOOL_SECONDS=180
CA=/etc/slirp-med/ca.pem
BUNDLE=/etc/slirp-med/ca-bundle.pem
ENV_FILE=/etc/slirp-med/env
PROFILE=/etc/profile.d/slirp-med.sh
DEBIAN_ANCHOR=/usr/local/share/ca-certificates/slirp-med.crt
FEDORA_ANCHOR=/etc/pki/ca-trust/source/anchors/slirp-med.pem
TEMPORARY=.slirp-med-new.
BUNDLES="/etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem
/etc/pki/tls/cert.pem /etc/ssl/ca-bundle.pem /var/lib/ca-certificates/ca-bundle.pem /etc/ssl/cert.pem"
BUNDLE_VARIABLES="SSL_CERT_FILE CURL_CA_BUNDLE REQUESTS_CA_BUNDLE PIP_CERT GIT_SSL_CAINFO CARGO_HTTP_CAINFO AWS_CA_BUNDLE DENO_CERT
GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"

cid=2 port=1027 serial='' sys=/sys dev=/dev load=1 wait_s=10 channels='' n_channels=0 expect=''
given_root=/ root='' layout=auto dry_run='' json='' quiet='' mode=install fetching=''
from='' hash='' replaced='' system_bundle='' system_count=0 update_tool='' update_state=none files='' notes='' error='' changed='' fail=0
layout_found='' why='' tmp=''

# ---- the report ----

say() {
    [ -n "$json$quiet" ] || printf '%s\n' "$*"
}

quoted() { # as a JSON string
    printf '"%s"' "$(printf '%s' "$1" | tr -d '\000-\037\177' | sed 's/[\\"]/\\&/g')"
}

or_null() {
    if [ -n "$1" ]; then quoted "$1"; else printf null; fi
}

note() {
    say "note: $*"
    notes="$notes${notes:+, }$(quoted "$*")"
}

fault() { # the first one stays
    printf 'slirp-med-guest: %s\n' "$*" >&2
    [ -n "$error" ] || error=$*
}

report_file() { # path, state
    if [ -n "$dry_run" ] && [ "$2" != unchanged ]; then say "would be $2: $1"; else say "$2: $1"; fi
    files="$files${files:+, }{\"path\": $(quoted "$1"), \"state\": \"$2\"}"
    [ "$2" = unchanged ] || changed=1
}

finish() { # status, result
    if [ -n "$json" ]; then
        [ "$1" = 0 ] || set -- "$1" failed
        printf '{"schema": "slirp-med-guest/1", "version": "%s", "result": "%s", "status": %s, ' "$VERSION" "$2" "$1"
        printf '"dry_run": %s, ' "$([ -n "$dry_run" ] && echo true || echo false)"
        printf '"error": %s, "from": %s, "sha256": %s, ' "$(or_null "$error")" "$(or_null "$from")" "$(or_null "$hash")"
        printf '"root": %s, "layout": %s, ' "$(quoted "$given_root")" "$(or_null "$layout_found")"
        printf '"replaced": %s, ' "$([ -n "$replaced" ] && echo true || echo false)"
        printf '"system_bundle": %s, "system_certificates": %s, ' "$(or_null "$system_bundle")" "$system_count"
        printf '"update": {"tool": %s, "state": "%s"}, ' "$(or_null "$update_tool")" "$update_state"
        printf '"files": [%s], "notes": [%s]}\n' "$files" "$notes"
    elif [ "$1" = 0 ]; then
        say "$2${dry_run:+ (dry run: nothing was changed)}"
    fi
    exit "$1"
}

usage() {
    cat <<'EOF'
usage: slirp-med-guest.sh [--from LIST] [--wait SECONDS] [--expect SHA256] [--layout LAYOUT] [--root DIR] [--dry-run] [--json]
       slirp-med-guest.sh --print-cert [--from LIST] [--wait SECONDS] [--expect SHA256]
       slirp-med-guest.sh --uninstall [--root DIR] [--dry-run] [--json]
       slirp-med-guest.sh --print-env [--root DIR]

Fetches the certificate of this guest's slirp-med workspace from the host, and installs it.

  --from LIST         where from, in this order: vsock, serial, fw_cfg, file:PATH, - (standard input), with commas between
                      (default: vsock,serial,fw_cfg)
  --vsock [CID:]PORT  (default: 2:1027); needs socat, slirp-med-guest, or an nc with --vsock
  --serial PATH       the port (default: the virtio-serial port named org.slirp-med.0)
  --wait SECONDS      for one of them to be there (default: 10)
  --expect SHA256     refuse any other certificate
  --layout LAYOUT     auto, debian, fedora, alpine or none (default: auto, by what is there)
  --root DIR          install into another root; nothing is run there
  --dry-run           say what would be done
  --json              one JSON object on standard output
  --print-cert        write the certificate to standard output, install nothing
  --print-env         what is installed, as lines for a shell: eval "$(slirp-med-guest.sh --print-env)"
  --uninstall         remove what was installed
  --sys DIR, --dev DIR  where sysfs and the devices are (default: /sys, /dev)
  --help, --version

Exit status: 0 done or unchanged, 1 not fetched in time, 2 usage, 3 bad certificate, 4 could not write.
EOF
}

wrong() {
    printf 'slirp-med-guest: %s\n' "$*" >&2
    exit 2
}

# ---- options ----

is_number() { # text, maximum
    case $1 in '' | *[!0-9]*) return 1 ;; esac
    [ ${#1} -le 10 ] && [ "$1" -le "$2" ]
}

set_from() {
    set_from_rest=$1,
    while [ -n "$set_from_rest" ]; do
        set_from_name=${set_from_rest%%,*}
        set_from_rest=${set_from_rest#*,}
        case $set_from_name in
        vsock | serial | fw_cfg | - | file:?*) ;;
        *) return 1 ;;
        esac
        n_channels=$((n_channels + 1))
        [ $n_channels -le 8 ] || return 1
        channels="$channels$set_from_name$NL"
    done
}

set_vsock() {
    case $1 in *:*) cid=${1%%:*} port=${1#*:} ;; *) port=$1 ;; esac
    is_number "$cid" 4294967295 && is_number "$port" 4294967295
}

set_expect() {
    expect=$(printf '%s' "$1" | tr -d : | tr A-F a-f)
    case $expect in *[!0-9a-f]*) return 1 ;; esac
    [ ${#expect} -eq 64 ]
}

set_root() {
    [ -n "$1" ] || return 1
    given_root=$1 root=$1
    while [ "${root%/}" != "$root" ]; do root=${root%/}; done
    [ -n "$root" ] || given_root=/
    case $root in -*) root=./$root ;; esac
}

set_layout() {
    case $1 in auto | debian | fedora | alpine | none) layout=$1 ;; *) return 1 ;; esac
}

set_wait() {
    wait_s=$1
    is_number "$1" 3600
}

set_path() { # variable, value
    [ -n "$2" ] && eval "$1=\$2"
}

set_mode() {
    [ "$mode" = install ] || wrong "these options do not go together; see --help"
    mode=$1
}

parse() {
    while [ $# -gt 0 ]; do
        option=$1 value=''
        shift
        case $option in
        --from | --vsock | --serial | --wait | --expect | --layout | --root | --sys | --dev)
            [ $# -gt 0 ] || wrong "$option: its value is missing"
            value=$1
            shift
            ;;
        --from=* | --vsock=* | --serial=* | --wait=* | --expect=* | --layout=* | --root=* | --sys=* | --dev=*)
            value=${option#*=} option=${option%%=*}
            ;;
        esac
        case $option in
        --from) fetching=1 && set_from "$value" ;;
        --vsock) fetching=1 && set_vsock "$value" ;;
        --serial) fetching=1 && set_path serial "$value" ;;
        --wait) fetching=1 && set_wait "$value" ;;
        --expect) fetching=1 && set_expect "$value" ;;
        --layout) set_layout "$value" ;;
        --root) set_root "$value" ;;
        --sys) load='' && set_path sys "$value" ;;
        --dev) set_path dev "$value" ;;
        --dry-run) dry_run=1 ;;
        --json) json=1 ;;
        --print-cert | --print-env | --uninstall) [ "$mode" = "${option#--}" ] || set_mode "${option#--}" ;;
        --help) usage && exit 0 ;;
        --version) echo "slirp-med-guest $VERSION" && exit 0 ;;
        *) wrong "unknown argument '$option'; see --help" ;;
        esac || wrong "$option: not a value it can have"
    done
    case $mode in
    uninstall) [ -z "$fetching" ] ;;
    print-env) [ -z "$fetching$json$dry_run" ] ;;
    print-cert) [ -z "$json$dry_run" ] ;;
    esac || wrong "these options do not go together; see --help"
}

# ---- the certificate ----

size_of() {
    echo $(($(wc -c <"$1")))
}

# The letters of the one block in a file, on stdout. Status: 0; 10 unfinished; 11 no BEGIN; 12 no base64; 13 something behind it.
letters_of() {
    letters_cut=0
    [ "$(tail -c 1 "$1" | tr '\n' x)" = x ] || letters_cut=1
    awk -v b="$BEGIN" -v e="$END" -v cut="$letters_cut" '
        { line[NR] = $0 }
        END {
            place = 0
            for (i = 1; i <= NR; i++) {
                l = line[i]
                part = cut && i == NR && l != ""
                if (place == 0) {
                    if (l == b) place = 1
                    else if (l != "" && !(part && index(b, l) == 1)) exit 11
                } else if (place == 1) {
                    if (l == e) place = 2
                    else if (!(part && index(e, l) == 1)) {
                        if (l == "" || length(l) > 76 || padded || l !~ /^[A-Za-z0-9+\/]*=?=?$/) exit 12
                        padded = l ~ /=/
                        printf "%s", l
                    }
                } else if (l != "") exit 13
            }
            exit place == 2 ? 0 : 10
        }' "$1"
}

# Is a file one DER SEQUENCE, as long as it says?
is_sequence() {
    sequence_size=$(size_of "$1")
    # shellcheck disable=SC2046 # numbers, to be split
    set -- $(od -An -tu1 -N4 "$1")
    [ $# -ge 3 ] && [ "$1" = 48 ] || return 1
    case $2 in
    129) [ "$3" -ge 128 ] && [ "$sequence_size" -eq $((3 + $3)) ] ;;
    130) [ $# -eq 4 ] && [ $(($3 * 256 + $4)) -ge 256 ] && [ "$sequence_size" -eq $((4 + $3 * 256 + $4)) ] ;;
    *) [ "$2" -ge 1 ] && [ "$2" -lt 128 ] && [ "$sequence_size" -eq $((2 + $2)) ] ;;
    esac
}

# Believe a file or not. 0: NAME.b64, NAME.der and NAME.pem (normal form) are there; 10: it may become right when more comes; else why says it.
check_pem() { # file, name
    why=
    [ "$(size_of "$1")" -le $PEM_MAX ] || { why='it is longer than 64 KiB' && return 1; }
    sed "s/$CR\$//" "$1" >"$tmp/lines"
    # Twice: a sed may drop what follows a NUL.
    if [ "$(tr -d '\012\040-\176' <"$tmp/lines" | wc -c)" -ne 0 ] || [ "$(tr -d '\012\015\040-\176' <"$1" | wc -c)" -ne 0 ]; then
        why='it has characters in it that no certificate has'
        return 1
    fi
    letters_of "$tmp/lines" >"$2.b64"
    case $? in
    0) ;;
    10) why='it ends before its END CERTIFICATE line' && return 10 ;;
    11) why='it does not begin with a BEGIN CERTIFICATE line' && return 1 ;;
    13) why='something comes after its END CERTIFICATE line' && return 1 ;;
    *) why='what it holds is not base64' && return 1 ;;
    esac
    # Strict: what it stands for, written again, is the same.
    if ! base64 -d <"$2.b64" >"$2.der" 2>/dev/null || ! base64 <"$2.der" | tr -d '\n' | cmp -s - "$2.b64"; then
        why='what it holds is not base64'
        return 1
    fi
    is_sequence "$2.der" || { why='what it holds is not one DER SEQUENCE' && return 1; }
    { echo "$BEGIN" && fold -w 64 "$2.b64" && printf '\n%s\n' "$END"; } >"$2.pem" || { why="cannot write to $tmp" && return 1; }
}

# ---- the channels: 0 got it, 1 bad, 2 later, 3 never; why says why not ----

now() { # seconds, of a clock that nobody sets
    if read -r now_up _ 2>/dev/null </proc/uptime; then echo "${now_up%%.*}"; else date +%s; fi
}

# Judge what has come as a whole. stream: more may come another time.
judge() { # file, stream?
    check_pem "$1" "$tmp/cert"
    case $? in
    0) return 0 ;;
    10)
        [ -s "$1" ] || why='it is empty'
        [ -n "$2" ] && return 2
        return 1
        ;;
    esac
    return 1
}

last_error() {
    last_line=$(tail -n 1 "$tmp/err")
    why=${last_line:-$1}
}

try_vsock() { # seconds
    if command -v socat >/dev/null; then
        set -- timeout "$1" socat -u "VSOCK-CONNECT:$cid:$port" -
    elif command -v slirp-med-guest >/dev/null; then
        set -- slirp-med-guest --print-cert --from vsock --vsock "$cid:$port" --wait "$1"
    elif command -v nc >/dev/null && nc --help 2>&1 | grep -q -e --vsock; then
        # By its path: a timeout of busybox would take the nc of busybox.
        set -- timeout "$1" "$(command -v nc)" --recv-only --vsock "$cid" "$port"
    else
        why='a shell cannot open it: neither socat, slirp-med-guest nor an nc with --vsock is here'
        return 3
    fi
    : >"$tmp/status"
    { "$@" || echo $? >"$tmp/status"; } 2>"$tmp/err" </dev/null | head -c $((PEM_MAX + 1)) >"$tmp/raw"
    if [ "$1" = slirp-med-guest ] && [ "$(cat "$tmp/status")" = 3 ]; then
        last_error 'it is no certificate'
        return 1
    fi
    judge "$tmp/raw" stream
    try_status=$?
    [ -s "$tmp/raw" ] || last_error 'it says nothing'
    return $try_status
}

find_port() {
    serial_path=$dev/virtio-ports/org.slirp-med.0
    [ ! -e "$serial_path" ] || return 0
    set +f
    for find_name in "$sys"/class/virtio-ports/*/name; do
        set -f
        find_line=''
        read -r find_line 2>/dev/null <"$find_name"
        [ "$find_line" = org.slirp-med.0 ] || continue
        find_name=${find_name%/name}
        serial_path=$dev/${find_name##*/}
        [ ! -e "$serial_path" ] || return 0
    done
    set -f
    return 1
}

# Ask, and read until the certificate's last line: the port has no end. tee keeps every byte, the loop looks at lines; whoever reads the port is
# ended by the loop, or by the time.
try_serial() { # seconds
    serial_path=$serial
    [ -n "$serial" ] || find_port || { why='there is no port org.slirp-med.0' && return 2; }
    [ -e "$serial_path" ] || { why="$serial_path: No such file or directory" && return 2; }
    : >"$tmp/pid"
    # shellcheck disable=SC2016 # expanded by that shell
    {
        sh -c 'echo $$ >"$1"; shift; exec timeout "$@"' sh "$tmp/pid" "$1" \
            sh -c 'exec 3<>"$1" || exit 1; [ ! -t 3 ] || stty raw -echo <&3; printf "ca\n" >&3; exec dd bs=1 count="$2" <&3' \
            sh "$serial_path" $((PEM_MAX + 1))
        : # the shell that says "Terminated" is this one
    } 2>"$tmp/err" | tee "$tmp/raw" | {
        while IFS= read -r serial_line; do
            case ${serial_line%"$CR"} in
            "$END") break ;;
            "$BEGIN") serial_begun=1 ;;
            '') ;;
            *) [ -n "${serial_begun-}" ] || break ;;
            esac
        done
        kill "$(cat "$tmp/pid")" 2>/dev/null
        cat >/dev/null
    }
    # A workspace that intercepts nothing has no CA, and will not have one.
    if printf 'error\n' | cmp -s - "$tmp/raw"; then
        why='the host has none to give'
        return 3
    fi
    judge "$tmp/raw" stream
    try_status=$?
    [ -s "$tmp/raw" ] || why="$serial_path: it says nothing"
    return $try_status
}

try_fw_cfg() {
    try_path=$sys/firmware/qemu_fw_cfg/by_name/opt/org.slirp-med/ca.pem/raw
    [ -r "$try_path" ] || { why="$try_path: it is not there, or not to be read" && return 2; }
    head -c $((PEM_MAX + 1)) "$try_path" >"$tmp/raw"
    judge "$tmp/raw" ''
}

try_file() { # path, seconds
    if [ "$1" = - ]; then
        timeout "$2" head -c $((PEM_MAX + 1)) >"$tmp/raw"
    else
        [ -e "$1" ] || { why="$1: No such file or directory" && return 3; }
        timeout "$2" head -c $((PEM_MAX + 1)) "$1" 2>/dev/null >"$tmp/raw" || { why="$1: it cannot be read" && return 3; }
    fi
    judge "$tmp/raw" ''
}

try_channel() { # channel, seconds
    case $1 in
    vsock) try_vsock "$2" ;;
    serial) try_serial "$2" ;;
    fw_cfg) try_fw_cfg ;;
    -) try_file - "$2" ;;
    file:-*) try_file "./${1#file:}" "$2" ;;
    file:*) try_file "${1#file:}" "$2" ;;
    esac
}

load_module() { # channel
    case $1 in
    vsock) load_name=vmw_vsock_virtio_transport ;;
    serial) load_name=virtio_console ;;
    fw_cfg) load_name=qemu_fw_cfg ;;
    *) return 1 ;;
    esac
    [ -n "$load" ] && [ "$(id -u)" = 0 ] && command -v modprobe >/dev/null && modprobe -q "$load_name" >/dev/null 2>&1
}

describe() {
    case $1 in
    vsock) echo "vsock (CID $cid, port $port)" ;;
    -) echo 'file -' ;;
    file:*) echo "file ${1#file:}" ;;
    *) echo "$1" ;;
    esac
}

# All channels in turn, until one gives it or the time is over.
fetch() {
    IFS=$NL
    # shellcheck disable=SC2086 # a line each; no globbing (set -f)
    set -- ${channels:-vsock${NL}serial${NL}fw_cfg}
    unset IFS
    fetch_deadline=$(($(now) + wait_s)) fetch_first=1 fetch_over=''
    while :; do
        fetch_left=$# fetch_again='' fetch_why='' fetch_number=0
        for fetch_channel; do
            fetch_number=$((fetch_number + 1))
            case $fetch_over in *":$fetch_number "*) # why, as it was
                fetch_rest=${fetch_over#*":$fetch_number "}
                fetch_why="$fetch_why${fetch_why:+; }${fetch_rest%%"$NL"*}"
                fetch_left=$((fetch_left - 1))
                continue
                ;;
            esac
            fetch_share=$(((fetch_deadline - $(now)) / fetch_left))
            [ $fetch_share -ge 1 ] || fetch_share=1
            fetch_left=$((fetch_left - 1))
            try_channel "$fetch_channel" $fetch_share
            fetch_status=$?
            if [ $fetch_status = 2 ] && [ -n "$fetch_first" ] && load_module "$fetch_channel"; then
                try_channel "$fetch_channel" $fetch_share
                fetch_status=$?
            fi
            case $fetch_status in
            0)
                from=$(describe "$fetch_channel")
                hash=$(sha256sum <"$tmp/cert.der")
                hash=${hash%% *}
                say "certificate: SHA-256 $hash, from $from"
                return 0
                ;;
            1)
                fault "$(describe "$fetch_channel") gave no certificate that can be used: $why"
                return 3
                ;;
            2) fetch_again=1 ;;
            esac
            case $fetch_channel in - | file:*) fetch_channel='file' ;; esac
            fetch_why="$fetch_why${fetch_why:+; }$fetch_channel: $why"
            if [ $fetch_status = 3 ]; then fetch_over="$fetch_over:$fetch_number $fetch_channel: $why$NL"; fi
        done
        fetch_first=''
        if [ -z "$fetch_again" ] || [ "$(now)" -ge "$fetch_deadline" ]; then break; fi
        sleep 0.1 2>/dev/null || sleep 1
    done
    fault "no certificate within $wait_s s ($fetch_why)"
    return 1
}

# ---- names inside the root: no link leads out of it ----

resolve() { # path in the root; sets resolved
    resolve_rest=$1 resolve_done='' resolve_left=40
    while [ -n "$resolve_rest" ]; do
        case $resolve_rest in
        */*) resolve_part=${resolve_rest%%/*} resolve_rest=${resolve_rest#*/} ;;
        *) resolve_part=$resolve_rest resolve_rest='' ;;
        esac
        case $resolve_part in
        '' | .) continue ;;
        ..) resolve_done=${resolve_done%/*} && continue ;;
        esac
        if [ -L "$root$resolve_done/$resolve_part" ]; then
            resolve_left=$((resolve_left - 1))
            [ $resolve_left -gt 0 ] && resolve_link=$(readlink "$root$resolve_done/$resolve_part") || return 1
            case $resolve_link in /*) resolve_done='' ;; esac
            resolve_rest=$resolve_link/$resolve_rest
        else
            resolve_done=$resolve_done/$resolve_part
        fi
    done
    resolved=$root$resolve_done
}

is_there() {
    resolve "$1" && [ -e "${resolved:-/}" ]
}

no_room() { # a part of ours could not be written
    fault "cannot write to $tmp"
    fail=4
}

failed() { # what, path
    fault "cannot $1 $root$2"
    fail=4
}

sweep() { # folder
    set +f
    rm -f "$1/$TEMPORARY"*
    set -f
}

put() { # path, file with its content. 0: it was, or would be, written
    [ $fail = 0 ] || return 1
    resolve "${1%/*}" || { failed 'make the folder of' "$1" && return 1; }
    put_folder=$resolved put_target=$resolved/${1##*/}
    if [ -f "$put_target" ] && [ ! -L "$put_target" ] && cmp -s "$2" "$put_target"; then
        # shellcheck disable=SC2012 # one file of a known name
        case $(ls -ld "$put_target") in -rw-r--r--*) report_file "$1" unchanged && return 1 ;; esac
    fi
    if [ -z "$dry_run" ]; then
        if ! mkdir -p "$put_folder" 2>/dev/null || [ ! -d "$put_folder" ]; then
            failed 'make the folder of' "$1"
            return 1
        fi
        sweep "$put_folder"
        put_new=$put_folder/$TEMPORARY$$
        # mv would go into a folder, and into what a link to one leads to.
        if [ -L "$put_target" ]; then rm -f "$put_target"; fi
        if [ -d "$put_target" ] || ! (set -C && cat "$2" >"$put_new") 2>/dev/null || ! chmod 0644 "$put_new" ||
            ! mv -f "$put_new" "$put_target" 2>/dev/null; then
            rm -f "$put_new"
            failed write "$1"
            return 1
        fi
    fi
    report_file "$1" written
}

take_away() { # path. 0: it was, or would be, removed
    [ $fail = 0 ] && resolve "${1%/*}" || return 1
    take_target=$resolved/${1##*/}
    [ -e "$take_target" ] || [ -L "$take_target" ] || return 1
    if [ -z "$dry_run" ]; then
        sweep "$resolved"
        rm -f "$take_target" 2>/dev/null || { failed remove "$1" && return 1; }
    fi
    report_file "$1" removed
}

# ---- the distribution's store ----

find_layout() {
    layout_found=$layout
    if [ "$layout" = auto ]; then
        if is_there /etc/pki/ca-trust/source/anchors; then
            layout_found=fedora
        elif is_there /etc/alpine-release; then
            layout_found=alpine
        elif is_there /etc/debian_version || is_there /etc/ca-certificates.conf || is_there /usr/share/ca-certificates ||
            is_there /usr/local/share/ca-certificates; then
            layout_found=debian
        else
            layout_found=none
        fi
    fi
    anchor='' tool='' argument='' fresh=''
    case $layout_found in
    # Debian's makes the links by subject hash anew only for names it has not seen, unless it is told to.
    debian) anchor=$DEBIAN_ANCHOR tool=update-ca-certificates fresh=--fresh ;;
    alpine) anchor=$DEBIAN_ANCHOR tool=update-ca-certificates ;;
    fedora) anchor=$FEDORA_ANCHOR tool=update-ca-trust argument=extract ;;
    esac
}

# The guest's own bundle in $tmp/system, without our certificate and those of former workspaces. These are known by their name: "slirp-med CA"
# behind its length, as it looks in base64 when it begins at the first, second or third byte of a group.
noted=''
read_system() {
    system_bundle='' system_count=0 system_has=''
    : >"$tmp/system"
    for system_path in $BUNDLES; do
        if ! is_there "$system_path"; then continue; fi
        if [ ! -f "$resolved" ] || [ ! -r "$resolved" ] || [ "$(size_of "$resolved")" -gt $BUNDLE_MAX ]; then
            [ -n "$noted" ] || note "$system_path is not used: it is no file, cannot be read, or is longer than 4 MiB"
            continue
        fi
        awk -v b="$BEGIN" -v e="$END" -v counts="$tmp/counts" '
            NR == FNR { ours = $0; next }
            { sub(/\r$/, "") }
            $0 == b { inside = 1; text = $0 "\n"; body = ""; next }
            !inside { next }
            $0 == e {
                inside = 0
                if (body == ours) has = 1
                if (body != ours && body !~ /DHNsaXJwLW1lZCBDQ|xzbGlycC1tZWQgQ0|Mc2xpcnAtbWVkIENB/) { printf "%s%s\n", text, e; n++ }
                next
            }
            $0 !~ /^[A-Za-z0-9+\/=]*$/ { inside = 0; next }
            { text = text $0 "\n"; body = body $0 }
            END { print n + 0, has + 0 >counts }' "$tmp/ours" "$resolved" >"$tmp/system" || { no_room && return; }
        read -r system_count system_has <"$tmp/counts"
        [ "$system_has" = 1 ] || system_has=''
        if [ "$system_count" -gt 0 ] || [ -n "$system_has" ]; then
            system_bundle=$system_path
            break
        fi
    done
    noted=1
}

find_tool() {
    for tool_folder in /usr/sbin /usr/bin /sbin /bin; do
        tool_path=$tool_folder/$tool
        [ ! -x "$tool_path" ] || return 0
    done
    return 1
}

update() { # fresh?
    update_tool=$tool
    if [ -n "$root" ]; then
        update_state=skipped
        note "$tool was not run: nothing is run in another root; run it there"
        return
    fi
    if ! find_tool; then
        update_state=missing
        note "$tool is not there: the system's store stays as it is, the variables lead to the combined bundle"
        return
    fi
    if [ -n "$dry_run" ]; then
        update_state=skipped
        note "$tool_path would be run"
        return
    fi
    [ -n "$1" ] || fresh=''
    # shellcheck disable=SC2086 # an argument or none
    : | env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C timeout $TOOL_SECONDS "$tool_path" $argument $fresh >&2
    update_status=$?
    changed=1
    if [ $update_status = 0 ]; then
        update_state='done'
        say "run: $tool_path${argument:+ $argument}${fresh:+ $fresh}"
    else
        update_state=failed
        fault "$tool_path failed with status $update_status"
    fi
}

was_other() { # path. 0: another certificate was put there before
    [ -n "$1" ] && resolve "$1" && [ -f "$resolved" ] && [ -r "$resolved" ] && check_pem "$resolved" "$tmp/old" &&
        ! cmp -s "$tmp/old.b64" "$tmp/cert.b64"
}

# ---- all of it ----

variables() { # what stands before each
    for variable in $BUNDLE_VARIABLES; do echo "$1$variable=$BUNDLE"; done
    echo "$1NODE_EXTRA_CA_CERTS=$CA"
}

check_root() {
    [ -z "$root" ] || [ -d "$root" ] || { fault "$given_root: it is no folder" && finish 4 failed; }
}

install() {
    check_root
    find_layout
    { cat "$tmp/cert.b64" && echo; } >"$tmp/ours" || no_room
    if was_other "$CA" || was_other "$anchor"; then replaced=1; fi
    written=''
    [ -z "$anchor" ] || { put "$anchor" "$tmp/cert.pem" && written=1; }
    read_system
    if [ -n "$tool" ] && [ $fail = 0 ]; then
        if [ -n "$written" ] || [ -z "$system_has" ]; then
            update "$replaced"
            read_system
        else
            update_tool=$tool update_state='not needed'
        fi
    fi
    put "$CA" "$tmp/cert.pem"
    [ -n "$system_bundle" ] || note "this system has no bundle of certificates: the combined bundle holds the workspace's alone"
    cat "$tmp/cert.pem" "$tmp/system" >"$tmp/bundle" || no_room
    put "$BUNDLE" "$tmp/bundle"
    variables '' >"$tmp/env" || no_room
    put "$ENV_FILE" "$tmp/env"
    { echo '# Written by slirp-med-guest: programs trust the certificate of this workspace.' && variables 'export '; } >"$tmp/profile" || no_room
    put "$PROFILE" "$tmp/profile"
    [ "$update_state" != failed ] || fail=4
    if [ -z "$changed" ]; then
        finish $fail unchanged
    elif [ -n "$replaced" ]; then
        finish $fail replaced
    fi
    finish $fail installed
}

uninstall() {
    check_root
    find_layout
    for uninstall_anchor in $DEBIAN_ANCHOR $FEDORA_ANCHOR; do
        if take_away "$uninstall_anchor" && [ "$uninstall_anchor" = "$anchor" ]; then update fresh; fi
    done
    for uninstall_path in $PROFILE $ENV_FILE $BUNDLE $CA; do take_away "$uninstall_path"; done
    if [ -z "$dry_run" ] && [ $fail = 0 ] && resolve "${CA%/*}"; then rmdir "$resolved" 2>/dev/null; fi
    [ "$update_state" != failed ] || fail=4
    if [ -n "$changed" ]; then finish $fail removed; else finish $fail unchanged; fi
}

print_env() {
    if ! is_there $BUNDLE || ! is_there $CA; then
        fault 'no certificate is installed'
        exit 1
    fi
    variables 'export '
    exit 0
}

make_folder() { # of our own, for parts
    for folder in "${TMPDIR:-/tmp}" /run /dev/shm /; do
        [ -d "$folder" ] && tmp=$(mktemp -d "$folder/slirp-med-guest.XXXXXX" 2>/dev/null) && return
    done
    fault 'there is no folder for temporary files'
    finish 4 failed
}

main() {
    parse "$@"
    case $mode in
    print-env) print_env ;;
    uninstall) uninstall ;;
    print-cert) quiet=1 ;;
    esac
    for needed in awk base64 dd fold head od sha256sum tee timeout; do
        command -v $needed >/dev/null || { fault "this system has no $needed: use the program slirp-med-guest" && finish 1 failed; }
    done
    trap '[ -z "$tmp" ] || rm -rf "$tmp"' EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    make_folder
    fetch || finish $? failed
    if [ -n "$expect" ] && [ "$expect" != "$hash" ]; then
        fault "this is not the certificate that is expected (SHA-256 $expect)"
        finish 3 failed
    fi
    if [ "$mode" = print-cert ]; then
        cat "$tmp/cert.pem" || exit 4
        exit 0
    fi
    install
}

main "$@"
