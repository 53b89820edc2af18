/* SPDX-License-Identifier: BSD-3-Clause */
/* outb PORT VALUE: one byte to an I/O port, for the guest that ends with a number (QEMU's isa-debug-exit). */
#include <stdio.h>
#include <stdlib.h>
#include <sys/io.h>

int main(int argc, char **argv)
{
    if (argc != 3) {
        fputs("usage: outb PORT VALUE\n", stderr);
        return 2;
    }
    unsigned short port = (unsigned short)strtoul(argv[1], NULL, 0);
    if (ioperm(port, 1, 1) < 0) {
        perror("ioperm");
        return 1;
    }
    outb((unsigned char)strtoul(argv[2], NULL, 0), port);
    return 0;
}
