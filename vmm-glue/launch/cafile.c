/* SPDX-License-Identifier: BSD-3-Clause */
/* Certificates from a file of the user's; see cafile.h. */
#include "launch/cafile.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/fd.h"
#include "base/secret.h"

static void bio_freep(BIO **bio)
{
    (void)BIO_free(*bio);
}

static void x509_freep(X509 **x)
{
    X509_free(*x);
}

/** The end of the text, and no broken block, is what the last read must have met. */
static bool ended_well(void)
{
    unsigned long e = ERR_peek_last_error();
    bool ok = ERR_GET_LIB(e) == ERR_LIB_PEM && ERR_GET_REASON(e) == PEM_R_NO_START_LINE;
    ERR_clear_error();
    return ok;
}

static int add_certificates(const char *text, size_t len, GString *pem, GError **error)
{
    sm_cleanup(bio_freep) BIO *in = BIO_new_mem_buf(text, (int)len);
    sm_cleanup(bio_freep) BIO *out = BIO_new(BIO_s_mem());
    unsigned n = 0;
    char *data;

    if (!in || !out) {
        sm_error_set(error, SM_ERROR_SYSTEM, "out of memory");
        return -1;
    }
    ERR_clear_error();
    for (;; n++) {
        sm_cleanup(x509_freep) X509 *x = PEM_read_bio_X509_AUX(in, NULL, NULL, NULL);
        if (!x)
            break;
        if (PEM_write_bio_X509(out, x) != 1) {
            sm_error_set(error, SM_ERROR_SYSTEM, "out of memory");
            return -1;
        }
    }
    if (!ended_well()) {
        sm_error_set(error, SM_ERROR_INVALID, "certificate %u of it is broken: export it again, as PEM", n + 1);
        return -1;
    }
    if (n == 0) {
        sm_error_set(error, SM_ERROR_INVALID,
                     "no certificate in it: give a PEM file (-----BEGIN CERTIFICATE-----); a DER file becomes one with "
                     "'openssl x509 -inform der -in FILE'");
        return -1;
    }
    long got = BIO_get_mem_data(out, &data);
    if (pem->len + (size_t)got > SM_CA_FILE_MAX) {
        sm_error_set(error, SM_ERROR_INVALID,
                     "more than 4 MiB of certificates in all: give only the CAs that these servers need");
        return -1;
    }
    g_string_append_len(pem, data, got);
    return 0;
}

int sm_ca_file_read(const char *path, GString *pem, GError **error)
{
    struct stat st;
    size_t len;
    sm_autofd fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);

    if (fd < 0 || fstat(fd, &st) < 0) {
        sm_error_set(error, SM_ERROR_INVALID, "cannot be read (%s): give a readable PEM file", strerror(errno));
        return -1;
    }
    if (!S_ISREG(st.st_mode)) {
        sm_error_set(error, SM_ERROR_INVALID, "not a regular file: give a PEM file");
        return -1;
    }
    if (st.st_size > SM_CA_FILE_MAX) {
        sm_error_set(error, SM_ERROR_INVALID,
                     "larger than 4 MiB: give a file with only the CAs that these servers need");
        return -1;
    }
    g_autofree char *text = sm_fd_read_all(fd, SM_CA_FILE_MAX, &len, error);
    if (!text)
        return -1;
    if (g_strstr_len(text, (gssize)len, "PRIVATE KEY-----")) {
        sm_wipe(text, len);
        sm_error_set(error, SM_ERROR_INVALID, "holds a private key: give a file with the CA's certificate alone");
        return -1;
    }
    return add_certificates(text, len, pem, error);
}
