/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Small language helpers that every module uses: cleanup attributes, ownership steals, array lengths.
 *
 * Ownership rule of the tree: a function that takes ownership says so in its header; the caller hands over with sm_steal_ptr() or
 * sm_steal_fd(), so that the hand-over can be seen in the code. On failure a function sets its GError and changes nothing else.
 */
#ifndef SM_BASE_DEFS_H
#define SM_BASE_DEFS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/** sm_cleanup(fn): run fn(&variable) when the variable leaves its scope. */
#define sm_cleanup(fn) __attribute__((cleanup(fn)))

#define SM_ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

#define SM_MIN(a, b) ((a) < (b) ? (a) : (b))
#define SM_MAX(a, b) ((a) > (b) ? (a) : (b))

#define SM_PRINTF(f, a) __attribute__((format(printf, f, a)))
#define SM_WARN_UNUSED __attribute__((warn_unused_result))

/** A name table must have one entry for each value of its enum: put the count last in the enum and tie both together. */
#define SM_NAME_TABLE_COVERS(table, count) _Static_assert(SM_ARRAY_LEN(table) == (count), #table " misses a name")

/** sm_steal_ptr(): move a pointer out of a variable that cleans up after itself. */
#define sm_steal_ptr(pp)                                                                                               \
    __extension__({                                                                                                    \
        __auto_type sm_stolen_ = *(pp);                                                                                \
        *(pp) = NULL;                                                                                                  \
        sm_stolen_;                                                                                                    \
    })

#endif
