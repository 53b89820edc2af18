#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
#
# The archive that slirp-med links can open, connect to and execute nothing:
# it has no undefined symbol that could. usage: undefined.sh ARCHIVE
set -eu

archive=$1
# A leading __ or a trailing _chk, 64 or 2, 4 is the same function.
bad='^_*(socket|socketpair|connect|bind|listen|accept|send|sendto|sendmsg|sendmmsg|recv|recvfrom|recvmsg|recvmmsg'
bad="$bad"'|read|write|close|shutdown|setsockopt|getsockopt|getsockname|ioctl|fcntl|poll|select|open|openat|creat'
bad="$bad"'|fopen|popen|system|fork|vfork|clone|exec[a-z]*|posix_spawn[a-z]*|dlopen|syscall|getenv|getaddrinfo'
bad="$bad"'|getnameinfo|g_spawn[a-z_]*|g_getenv|g_file_[a-z_]*|g_socket[a-z_]*|g_log[a-z_]*|abort|exit)(_chk|64|2|4)*$'

symbols=$(nm -u "$archive" | awk '$1 == "U" { print $2 }' | sort -u)
[ -n "$symbols" ] || { echo "$archive: nm shows no undefined symbols at all"; exit 1; }
# that the list above can find something
printf '%s\n' __recv_chk openat64 accept4 execve g_spawn_async | grep -cE "$bad" | grep -qx 5 || {
    echo "the pattern does not match what it should"
    exit 1
}
found=$(printf '%s\n' "$symbols" | grep -E "$bad" || true)
if [ -n "$found" ]; then
    echo "$archive may not need:"
    echo "$found"
    exit 1
fi
