/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What CMD must not see of credentials: each file that a reference names, and the folder it lies in where that holds nothing else.
 *
 * CMD's view has a cover mounted over each of these (paths/guest_mounts.h). The kernel takes a mount off a file when somebody outside renames
 * another one over it or removes it, which is how most programs renew a key: the new one would lie open before CMD. A covered folder
 * stays covered whatever happens in it. A folder that CMD may need cannot be covered, so it must be the credentials' own:
 *
 *   - all in it are files of references;
 *   - nobody but its owner, we or root, may write in it;
 *   - it is neither the current folder nor the home folder.
 *
 * References that are elsewhere are for the operator to know: sm_hidden_open().
 */
#ifndef SM_LAUNCH_HIDDEN_H
#define SM_LAUNCH_HIDDEN_H

#include "base/defs.h"

/**
 * sm_hidden_paths() - @files: absolute paths, NULL-terminated. @cwd, @home: folders that are never hidden; NULL: none.
 * Returns the files and the folders, for g_strfreev(). May block.
 */
char **sm_hidden_paths(char *const *files, const char *cwd, const char *home);
/** sm_hidden_open() - the first of @files whose folder is not in @hidden; NULL: there is none. Borrowed. */
const char *sm_hidden_open(char *const *files, char *const *hidden);

#endif
